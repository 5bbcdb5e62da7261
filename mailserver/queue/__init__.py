"""accept(), the scheduler, settle(); the spool is its on-disk format."""
