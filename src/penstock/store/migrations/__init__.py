"""The schema, step by step: numbered SQL files per database, each applied once, in order."""
