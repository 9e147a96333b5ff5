"""Run a program to which the kernel refuses a system call, as sandboxes and old kernels do:

    python refuse.py memfd_create EPERM PROGRAM ARGUMENT...

A seccomp filter (seccomp(2)) of four instructions, inherited by everything that the program starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {("memfd_create", "x86_64"): 319, ("memfd_create", "aarch64"): 279}

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
LOAD_NUMBER = (0x20, 0, 0, 0)  # BPF_LD | BPF_W | BPF_ABS, the offset of seccomp_data.nr
ALLOW = (0x06, 0, 0, 0x7FFF0000)  # BPF_RET, SECCOMP_RET_ALLOW
SECCOMP_RET_ERRNO = 0x00050000


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def refuse(call: str, reason: str) -> None:
    number = NUMBERS[call, platform.machine()]
    compare = (0x15, 0, 1, number)  # BPF_JMP | BPF_JEQ | BPF_K: else skip one
    answer = (0x06, 0, 0, SECCOMP_RET_ERRNO | getattr(errno, reason))
    code = b"".join(struct.pack("HBBI", *each) for each in (LOAD_NUMBER, compare, answer, ALLOW))
    instructions = ctypes.create_string_buffer(code, len(code))
    program = Program(4, ctypes.cast(instructions, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _, call, reason, *program = sys.argv
    refuse(call, reason)
    os.execv(program[0], program)
