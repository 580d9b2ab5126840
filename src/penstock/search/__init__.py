"""Search for hyperparameters: which values a trial gets, and which trials are not worth going on with. Knows no service."""
