"""Models: an image with its data, by which endpoints and transform jobs run.

Real: names, roles, packages named must be there; a package's image, data and environment become the model's.
Kept and shown only: VpcConfig, ImageConfig, network isolation until something runs the model.
"""
