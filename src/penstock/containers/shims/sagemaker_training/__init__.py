"""Stands in for AWS's training toolkit: `environment.Environment`, `content_types`, `encoders`, `errors`, `files`,
`mapping`, `params`, `logging_config`. Starting programs (`entry_point`, `modules`, `mpi`) is the job's own business and
is not served."""
