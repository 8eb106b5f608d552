"""A bad wire: takes packets from one tun device and puts them on the other, or loses, delays, doubles or damages them.

usage: wire.py SEED NAMESPACE DEVICE NAMESPACE DEVICE

What happens to a packet depends on the seed and on its number alone. Prints `ready` when both ends are open.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000

LOST = 0.03
DOUBLED = 0.02
DAMAGED = 0.01
LATE = 0.15
# One connection in so many is reset by somebody on the way.
RESETS = 0.004


def open_device(namespace, name):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def reset_for(packet):
    """A reset that the receiver of this packet will believe: the same place, and no data."""
    length = (packet[0] & 15) * 4
    if packet[0] >> 4 != 4 or packet[9] != 6 or packet[length + 13] & 7:
        return None
    head = bytearray(packet[: length + 20])
    head[2:4] = struct.pack("!H", len(head))
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", checksum(bytes(head[:length])))
    tcp = head[length:]
    tcp[12:14] = bytes([5 << 4, 0x14])
    tcp[16:20] = b"\0\0\0\0"
    pseudo = bytes(head[12:20]) + struct.pack("!BBH", 0, 6, len(tcp))
    tcp[16:18] = struct.pack("!H", checksum(pseudo + bytes(tcp)))
    return bytes(head[:length]) + bytes(tcp)


def main():
    chance = random.Random(int(sys.argv[1]))
    ends = [open_device(*sys.argv[2:4]), open_device(*sys.argv[4:6])]
    print("ready", flush=True)
    waiting = []
    count = 0
    while True:
        timeout = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for end in select.select(ends, [], [], timeout)[0]:
            packet = os.read(end, 65536)
            to = ends[1] if end == ends[0] else ends[0]
            now = time.monotonic()
            fate = chance.random()
            copies = 1
            if fate < LOST:
                continue
            if fate < LOST + DOUBLED:
                copies = 2
            elif fate < LOST + DOUBLED + DAMAGED and len(packet) > 60:
                at = 40 + chance.randrange(len(packet) - 40)
                packet = packet[:at] + bytes([packet[at] ^ 0x55]) + packet[at + 1 :]
            elif fate > 1 - RESETS:
                packet = reset_for(packet) or packet
            for _ in range(copies):
                late = chance.random() * 0.02 if chance.random() < LATE else 0.001
                count += 1
                heapq.heappush(waiting, (now + late, count, to, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(waiting)
            try:
                os.write(to, packet)
            except OSError:
                pass  # what was damaged may be no packet any more


main()
