"""For tests of one's own pipelines: `pytest --penstock` gives a test an account of its own on a server that the session shares.

    def test_my_pipeline(penstock): ...

Nothing is imported here, so that a pytest that does not ask for it loses no time.
"""
