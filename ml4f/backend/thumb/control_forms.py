"""Encodings that layout needs and no operation has: branches, calls, saving registers, the stack pointer, no-ops.

Source: ARM DDI 0403E, A7.7. SUBS here must set the flags, unlike the operations' forms.
"""

from __future__ import annotations

from ml4f.backend.thumb.encoding import form

SUBS = form(
    "alu",
    ("0011 1ddd iiiiiiii", "subs.n {=d:l}, {n~d}, {i:u}"),
    ("11110 i 01101 1 nnnn 0 iii dddd iiiiiiii", "subs.w {=d:r}, {n:r}, {i:mod}"),
)
BRANCH_IF = form(
    "branch",
    ("1101 cccc ssssssss", "b{c:cond}.n {s:disp}"),
    ("11110 s cccc iiiiii 10 j 0 k iiiiiiiiiii", "b{c:cond}.w {skji:disp}"),
)
BRANCH = form(
    "branch",
    ("11100 sssssssssss", "b.n {s:disp}"),
    ("11110 s iiiiiiiiii 10 j 1 k iiiiiiiiiii", "b.w {sjki:long}"),
)
CALL = form("branch", ("11110 s iiiiiiiiii 11 j 1 k iiiiiiiiiii", "bl {sjki:long}"))
RETURN = form("branch", ("0100 0111 0 1110 000", "bx lr"))
NOP = form("alu", ("1011 1111 0000 0000", "nop.n"))
PUSH = form(
    "push", ("1011 0 10 m rrrrrrrr", "push {mr:lows_lr}"), ("1110 1001 0010 1101 mmmmmmmmmmmmmmmm", "push.w {m:cores}")
)
POP = form(
    "pop",
    ("1011 1 10 m rrrrrrrr", "pop {=mr:lows_pc}"),
    ("1110 1000 1011 1101 mmmmmmmmmmmmmmmm", "pop.w {=m:cores_pc}"),
)
VPUSH = form("push", ("1110 1101 0D10 1101 dddd 1010 iiiiiiii", "vpush {dDi:slist}"))
VPOP = form("pop", ("1110 1100 1D11 1101 dddd 1010 iiiiiiii", "vpop {=dDi:slist}"))
SUB_SP = form(
    "alu",
    ("1011 0000 1 iiiiiii", "sub sp, {i:x4}"),
    ("11110 i 01101 0 1101 0 iii 1101 iiiiiiii", "sub.w sp, sp, {i:mod}"),
)
ADD_SP = form(
    "alu",
    ("1011 0000 0 iiiiiii", "add sp, {i:x4}"),
    ("11110 i 01000 0 1101 0 iii 1101 iiiiiiii", "add.w sp, sp, {i:mod}"),
)

CONTROL_FORMS = (SUBS, BRANCH_IF, BRANCH, CALL, RETURN, NOP, PUSH, POP, VPUSH, VPOP, SUB_SP, ADD_SP)
