"""VALUES: address, envelope, headers, ids, trace headers. No I/O."""
