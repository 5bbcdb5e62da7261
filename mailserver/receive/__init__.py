"""SMTP listeners; the only importer of aiosmtpd."""
