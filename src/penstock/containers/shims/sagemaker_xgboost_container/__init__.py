"""Stands in for AWS's XGBoost container package, as far as scripts import it: `data_utils.get_dmatrix` and friends,
`encoder` (request bodies to DMatrix), `checkpointing.train`, `distributed.rabit_run`, `constants`, `recordio_protobuf`.
The built-in algorithm of Penstock stands on the same modules. mlio is not needed."""
