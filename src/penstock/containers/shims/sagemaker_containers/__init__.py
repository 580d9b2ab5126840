"""Stands in for the older toolkit: `beta.framework`, `entry_point.install`, `_content_types`, `_encoders`, `_errors`,
`_env`."""
