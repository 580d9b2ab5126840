"""Warm workers of functions, and the way to them. Knows no service: who makes a worker is handed in.

    base         an order, its outcome, what a dispatcher promises
    runtime      AWS's Runtime API, as a worker in its sandbox asks it
    workers      one worker: its run, what it does now, how it ended
    dispatcher   which worker serves which order; starting, keeping warm, ending
    desk         the thread of it in the engine process, and its two sockets
    remote       the way there from a front
"""
