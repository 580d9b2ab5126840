"""Users and their access keys. Real: the keys sign requests. Only kept: users' policies."""
