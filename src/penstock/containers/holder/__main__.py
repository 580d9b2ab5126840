"""Holds the network of a job's container: opens the ports of Penstock in it, hands them out, and makes sockets when asked.

Run by the server's own Python in a container beside the job's, whose network the job's container joins. It ends with whoever listens
on the socket: the run's supervisor.

Takes: the socket's path, and the ports, as arguments.
"""

import json
import os
import socket
import sys

BACKLOG = 512


def main(path: str, ports: list) -> None:  # type: ignore[type-arg]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    listening = [socket.create_server(("127.0.0.1", port), backlog=BACKLOG) for port in ports]
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    send(connection, [network] + [each.fileno() for each in listening])
    for line in connection.makefile("rb"):
        made = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(int(line))]
        send(connection, [each.fileno() for each in made])
        for each in made:
            each.close()


def send(connection: socket.socket, descriptors: list) -> None:  # type: ignore[type-arg]
    socket.send_fds(connection, [json.dumps(len(descriptors)).encode() + b"\n"], descriptors)


if __name__ == "__main__":
    main(sys.argv[1], [int(port) for port in sys.argv[2:]])
