"""Sends or captures raw Ethernet frames, one a line in hexadecimal: raw.py send IF | raw.py capture IF.

Only what a test in a network namespace needs and Node lacks: an AF_PACKET socket. The capture prints "ready", then
every frame that comes in until standard input ends.
"""

import select
import socket
import sys

ETH_P_ALL = 3
PACKET_OUTGOING = 4


def send(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0))
        for line in sys.stdin:
            link.send(bytes.fromhex(line))


def capture(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as link:
        link.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
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


{"send": send, "capture": capture}[sys.argv[1]](sys.argv[2])
