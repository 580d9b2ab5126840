"""ECR: repositories, their settings, and the images that `penstock image build` made for them.

Real: an image of a repository is one that was built here under its address, and jobs that name it run on it; deleting an
image takes it from this machine.
Kept and shown only: lifecycle policies, repository policies, scanning, encryption and tag mutability settings.
Not here: the registry behind the address; `docker push` and `docker pull` reach nothing.
"""

FOLDERS = ("images",)
"""The noun that has a folder of its own."""
