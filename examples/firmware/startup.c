/* SPDX-License-Identifier: MIT
 *
 * Vector table and reset handler: FPU on, .data and .bss set up, main() called. Knows nothing of the board but what
 * link.ld tells it.
 */
#include <stdint.h>

#include "semihosting.h"

extern uint32_t data_load_start[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

uint32_t main(void);
void reset_handler(void);
void fault_handler(void);

typedef void (*handler_t)(void);

typedef struct {
    uint32_t *initial_stack_pointer;
    handler_t handlers[15];
} vector_table_t;

/* Core exceptions only: no interrupt is ever enabled. */
__attribute__((section(".vectors"), used)) static const vector_table_t vectors = {
    stack_top,
    {reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
     fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
     fault_handler},
};

static void enable_fpu(void) {
    volatile uint32_t *const coprocessor_access_control = (volatile uint32_t *)0xe000ed88u; /* CPACR */
    const uint32_t full_access_to_cp10_and_cp11 = 0xfu << 20;
    *coprocessor_access_control |= full_access_to_cp10_and_cp11;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

void reset_handler(void) {
    const uint32_t *source = data_load_start;
    uint32_t *target;
    enable_fpu();
    for (target = data_start; target < data_end; target++) {
        *target = *source++;
    }
    for (target = bss_start; target < bss_end; target++) {
        *target = 0u;
    }
    leave(main());
}

void fault_handler(void) {
    const uint32_t exit_code_of_a_fault = 5u;
    write_text("# fault\n");
    leave(exit_code_of_a_fault);
}
