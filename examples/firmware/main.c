/* SPDX-License-Identifier: MIT
 *
 * Runs one compiled model on one input and prints the output: a line an element, the bits of the float as eight hex
 * digits. Lines that begin with # are remarks. The exit codes are below.
 *
 * MODEL_HEADER, MODEL_ID and MODEL_PREFIX come from the Makefile: "mnist.h", mnist and MNIST, say.
 */
#include <stdint.h>

#include "input.h"
#include "ml4f.h"
#include "semihosting.h"
#include MODEL_HEADER

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

#define MODEL PASTE(MODEL_ID, _model)
#define OBJECT_BYTES PASTE(MODEL_PREFIX, _OBJECT_BYTES)
#define ARENA_WORDS PASTE(MODEL_PREFIX, _ARENA_WORDS)
#define INPUT_ELEMENTS PASTE(MODEL_PREFIX, _INPUT_ELEMENTS)
#define OUTPUT_ELEMENTS PASTE(MODEL_PREFIX, _OUTPUT_ELEMENTS)

enum { EXIT_FINE = 0, EXIT_TEST_MISMATCH = 1, EXIT_INVALID_OBJECT = 2, EXIT_RUN_FAILED = 3 };

/* ml4f_invoke() takes bytes; the words make it aligned. */
static uint32_t arena[ARENA_WORDS];

/* Fails to compile if the baked input does not fit the model. */
typedef char input_has_the_right_size[sizeof(model_input) / sizeof(model_input[0]) == INPUT_ELEMENTS ? 1 : -1];

static void print_word(uint32_t word) {
    static const char digits[] = "0123456789abcdef";
    char text[10];
    uint32_t i;
    for (i = 0u; i < 8u; i++) {
        text[i] = digits[(word >> (28u - 4u * i)) & 15u];
    }
    text[8] = '\n';
    text[9] = '\0';
    write_text(text);
}

/* With NaN everywhere, an element that is read before it is written shows in the output. */
static void fill_arena_with_nan(void) {
    uint32_t i;
    for (i = 0u; i < ARENA_WORDS; i++) {
        arena[i] = 0xffffffffu;
    }
}

static uint32_t run(const ml4f_header_t *model) {
    uint32_t *input = arena + model->input_offset / sizeof(uint32_t);
    const uint32_t *output = arena + model->output_offset / sizeof(uint32_t);
    uint32_t i;

    fill_arena_with_nan();
    for (i = 0u; i < INPUT_ELEMENTS; i++) {
        input[i] = model_input[i];
    }
    if (ml4f_invoke(model, (uint8_t *)arena) < 0) {
        write_text("# ml4f_invoke failed\n");
        return EXIT_RUN_FAILED;
    }
    for (i = 0u; i < OUTPUT_ELEMENTS; i++) {
        print_word(output[i]);
    }
    return EXIT_FINE;
}

static uint32_t run_test_vector(const ml4f_header_t *model) {
    int status;
    fill_arena_with_nan();
    status = ml4f_test(model, (uint8_t *)arena);
    if (status < 0) {
        write_text("# test vector: wrong output\n");
        return EXIT_TEST_MISMATCH;
    }
    write_text(status == ML4F_NO_TEST_DATA ? "# test vector: none\n" : "# test vector: passed\n");
    return EXIT_FINE;
}

uint32_t main(void) {
    const ml4f_header_t *model = (const ml4f_header_t *)(const void *)MODEL;
    uint32_t exit_code;
    if (!ml4f_is_valid_object(model, OBJECT_BYTES)) {
        write_text("# the object is not valid\n");
        return EXIT_INVALID_OBJECT;
    }
    exit_code = run(model);
    return exit_code == EXIT_FINE ? run_test_vector(model) : exit_code;
}
