"""The tagging API: tags of all services, read and written in one place.

Real: GetResources with its filters, TagResources, UntagResources, keys and values, over everything here that has tags.
Not here: tag policies, compliance and reports.
"""
