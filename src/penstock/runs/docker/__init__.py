"""Runs of real images, as containers of Docker or of Podman's service that speaks Docker's API (extra `docker`).

The same supervisor, with another inside: `attempt` has a container where `supervisor` has bubblewrap. `daemon` finds the engine and
speaks to it, `archives` moves files in and out, `sockets` has the ports of Penstock inside, `store` makes environments of images, and
`sweep` removes containers that nobody watches any more.
"""
