"""What keys are for: encrypting, decrypting, and making data keys."""
