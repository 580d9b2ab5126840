"""Other people's tests, run against a server of ours: `make conformance`."""
