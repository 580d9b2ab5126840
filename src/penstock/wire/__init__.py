"""AWS's protocols, from botocore's models: bytes to parameters and results to bytes. Knows no service."""
