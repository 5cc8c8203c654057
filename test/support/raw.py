"""Sends or captures raw Ethernet frames in hexadecimal: raw.py send IF | raw.py capture IF | raw.py station IF.

Only what a test in a network namespace needs and Node lacks: an AF_PACKET socket. `send` takes frames one a line. The
capture prints "ready", then every frame that comes in until standard input ends. A station does both, see there.
"""

import os
import select
import socket
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
STREAM_BURST_SECONDS = 0.002


def send(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0))
        for line in sys.stdin:
            link.send(bytes.fromhex(line))


def capture(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as link:
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        link.bind((interface, ETH_P_ALL))
        print("ready", flush=True)
        ending = False
        while True:
            readable, _, _ = select.select([link] if ending else [link, sys.stdin], [], [], 0.2 if ending else None)
            if link in readable:
                frame, address = link.recvfrom(65536)
                if address[2] != PACKET_OUTGOING:
                    print(frame.hex())
            elif sys.stdin in readable:
                ending = True
            else:
                return


class Stream:
    """Frames sent in turn, some every two milliseconds. Late is late: nothing is made up for in a burst."""

    def __init__(self, link, per_second, frames):
        self.link = link
        self.frames = frames
        self.burst = max(1, round(per_second * STREAM_BURST_SECONDS))
        self.sent = 0
        self.due = 0

    def go_on(self):
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + STREAM_BURST_SECONDS
        for _ in range(self.burst):
            self.link.send(self.frames[self.sent % len(self.frames)])
            self.sent += 1


def station(interface):
    """Prints "=ready", then every frame that comes in. Takes a command a line until standard input ends:

    send FRAME...               answered "=sent" when all are on the wire
    stream PER_SECOND FRAME...  answered "=sent" when the first are
    halt                        ends the stream; answered "=halted COUNT"
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as link:
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        link.bind((interface, ETH_P_ALL))
        print("=ready", flush=True)
        stream = None
        rest = b""
        while True:
            readable, _, _ = select.select([link, 0], [], [], STREAM_BURST_SECONDS / 4 if stream else None)
            if 0 in readable:
                chunk = os.read(0, 1 << 20)
                if not chunk:
                    return
                *commands, rest = (rest + chunk).split(b"\n")
                for verb, *words in (command.decode().split() for command in commands):
                    if verb == "send":
                        for word in words:
                            link.send(bytes.fromhex(word))
                        print("=sent")
                    elif verb == "stream":
                        stream = Stream(link, int(words[0]), [bytes.fromhex(word) for word in words[1:]])
                        stream.go_on()
                        print("=sent")
                    else:
                        print(f"=halted {stream.sent}")
                        stream = None
            if stream:
                stream.go_on()
            while True:
                try:
                    frame, address = link.recvfrom(65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                if address[2] != PACKET_OUTGOING:
                    print(frame.hex())
                if stream:
                    stream.go_on()
            sys.stdout.flush()


{"send": send, "capture": capture, "station": station}[sys.argv[1]](sys.argv[2])
