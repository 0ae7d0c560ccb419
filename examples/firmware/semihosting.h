/* SPDX-License-Identifier: MIT
 *
 * Output and exit through the debugger (or QEMU). Without one attached, the BKPT is a fault: on a board of your own,
 * replace the two functions by a UART and an endless loop.
 */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

static inline void semihosting_call(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static inline void write_text(const char *text) {
    const uint32_t sys_write0 = 0x04u;
    semihosting_call(sys_write0, text);
}

static inline void leave(uint32_t exit_code) {
    const uint32_t sys_exit_extended = 0x20u;
    const uint32_t application_exit = 0x20026u;
    const uint32_t arguments[2] = {application_exit, exit_code};
    semihosting_call(sys_exit_extended, arguments);
    for (;;) {
    }
}

#endif
