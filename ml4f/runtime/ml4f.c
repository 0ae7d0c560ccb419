/* SPDX-License-Identifier: MIT
 *
 * ml4f.c - see ml4f.h. C99, compiles as C++ too.
 *
 * Compile-time settings:
 *
 *   ML4F_ALLOC(bytes), ML4F_FREE(pointer)   where ml4f_full_invoke() gets its arena: word aligned, or NULL
 *   ML4F_STATIC_ARENA_BYTES=n               without ML4F_ALLOC: one static arena of n bytes, for one call at a time
 *   ML4F_USE_MALLOC                         without both: malloc() and free()
 *                                           without all three: ml4f_full_invoke() returns ML4F_E_NO_MEMORY
 *   ML4F_ENTER(model, arena)                how the code is entered, an int; for emulators and tests
 */
#include "ml4f.h"

#if defined(__GNUC__) || defined(__clang__)
/* Arenas and objects hold words and floats side by side. */
typedef uint32_t __attribute__((__may_alias__)) ml4f_word_t;
/* Keeps the compiler from making a call of memcpy() out of a loop: there may be none. */
#define ML4F_NO_LIBRARY_CALL() __asm__ volatile("" ::: "memory")
#else
typedef uint32_t ml4f_word_t;
#define ML4F_NO_LIBRARY_CALL() ((void)0)
#endif

static const uint32_t word_bytes = 4u;

/* ---- validity ---- */

static int is_word_aligned(const void *pointer) { return ((uintptr_t)pointer & 3u) == 0u; }

/* Is [offset, offset + bytes) aligned and within [start, end)? */
static int is_inside(uint32_t offset, uint32_t bytes, uint32_t start, uint32_t end) {
    return (offset & 3u) == 0u && offset >= start && offset <= end && bytes <= end - offset;
}

/* The word behind the shape's terminator, or NULL if none is found within `available` words and ML4F_MAX_RANK. */
static const uint32_t *skip_bounded_shape(const uint32_t *shape, uint32_t available) {
    uint32_t rank;
    for (rank = 0u; rank < available && rank <= ML4F_MAX_RANK; rank++) {
        if (shape[rank] == 0u) {
            return shape + rank + 1u;
        }
    }
    return NULL;
}

static uint32_t words_between(const uint32_t *first, const uint32_t *end) { return (uint32_t)(end - first); }

/* Checks whatever the shapes decide: sizes of input and output in the arena and in the test vector. */
static int has_valid_tensors(const ml4f_header_t *header) {
    const uint32_t *input_shape = (const uint32_t *)(const void *)(header + 1);
    const uint32_t *end = (const uint32_t *)(const void *)header + header->header_size / word_bytes;
    const uint32_t *output_shape = skip_bounded_shape(input_shape, words_between(input_shape, end));
    uint32_t input_bytes;
    uint32_t output_bytes;

    if (output_shape == NULL || skip_bounded_shape(output_shape, words_between(output_shape, end)) == NULL) {
        return 0;
    }
    input_bytes = ml4f_shape_size(input_shape, header->input_type);
    output_bytes = ml4f_shape_size(output_shape, header->output_type);
    if (input_bytes == 0u || output_bytes == 0u) {
        return 0;
    }
    if (!is_inside(header->input_offset, input_bytes, 0u, header->arena_bytes) ||
        !is_inside(header->output_offset, output_bytes, 0u, header->arena_bytes)) {
        return 0;
    }
    if (header->test_input_offset != 0u &&
        !is_inside(header->test_input_offset, input_bytes, header->header_size, header->object_size)) {
        return 0;
    }
    return header->test_output_offset == 0u ||
           is_inside(header->test_output_offset, output_bytes, header->header_size, header->object_size);
}

int ml4f_is_valid_header(const ml4f_header_t *header) {
    if (header == NULL || !is_word_aligned(header)) {
        return 0;
    }
    if (header->magic0 != ML4F_MAGIC0 || header->magic1 != ML4F_MAGIC1) {
        return 0;
    }
    if ((header->reserved[0] | header->reserved[1] | header->reserved[2] | header->reserved[3]) != 0u) {
        return 0;
    }
    if ((header->object_size & 15u) != 0u || (header->header_size & 3u) != 0u) {
        return 0;
    }
    if (header->header_size < sizeof(ml4f_header_t) || header->header_size >= header->object_size) {
        return 0;
    }
    if (!is_inside(header->weights_offset, 0u, header->header_size, header->object_size)) {
        return 0;
    }
    return has_valid_tensors(header);
}

int ml4f_is_valid_object(const void *data, size_t bytes) {
    const ml4f_header_t *header = (const ml4f_header_t *)data;
    if (header == NULL || !is_word_aligned(header) || bytes < sizeof(ml4f_header_t) || bytes < header->object_size) {
        return 0;
    }
    return ml4f_is_valid_header(header);
}

/* ---- shapes ---- */

const uint32_t *ml4f_input_shape(const ml4f_header_t *model) { return (const uint32_t *)(const void *)(model + 1); }

const uint32_t *ml4f_output_shape(const ml4f_header_t *model) {
    const uint32_t *shape = ml4f_input_shape(model);
    while (*shape != 0u) {
        shape++;
    }
    return shape + 1;
}

uint32_t ml4f_shape_elements(const uint32_t *shape) {
    uint32_t elements = 1u;
    for (; *shape != 0u; shape++) {
        if (*shape > UINT32_MAX / elements) {
            return 0u;
        }
        elements *= *shape;
    }
    return elements;
}

uint32_t ml4f_shape_size(const uint32_t *shape, uint32_t type) {
    uint32_t elements = ml4f_shape_elements(shape);
    if (type != ML4F_TYPE_FLOAT32 || elements > UINT32_MAX / word_bytes) {
        return 0u;
    }
    return elements * word_bytes;
}

/* ---- running ---- */

#ifndef ML4F_ENTER
#if defined(__arm__) || defined(__ARM_ARCH) || defined(__ICCARM__) || defined(__CC_ARM)
#define ML4F_RUNS_ARM_CODE (UINTPTR_MAX == UINT32_MAX)
#else
#define ML4F_RUNS_ARM_CODE 0
#endif

#if ML4F_RUNS_ARM_CODE
typedef void (*ml4f_entry_t)(const void *object, void *arena);

static int enter(const ml4f_header_t *model, uint8_t *arena) {
    const uintptr_t thumb_state = 1u;
    ml4f_entry_t entry = (ml4f_entry_t)(((uintptr_t)model + model->header_size) | thumb_state);
    entry(model, arena);
    return ML4F_OK;
}
#else
static int enter(const ml4f_header_t *model, uint8_t *arena) {
    (void)model;
    (void)arena;
    return ML4F_E_UNSUPPORTED;
}
#endif
#define ML4F_ENTER(model, arena) enter(model, arena)
#endif

int ml4f_invoke(const ml4f_header_t *model, uint8_t *arena) {
    if (model == NULL || arena == NULL) {
        return ML4F_E_NULL;
    }
    if (!ml4f_is_valid_header(model)) {
        return ML4F_E_HEADER;
    }
    if (!is_word_aligned(arena)) {
        return ML4F_E_ALIGNMENT;
    }
    return ML4F_ENTER(model, arena);
}

/* Both ends are word aligned; `bytes` is a multiple of 4. */
static void copy_words(void *target, const void *source, uint32_t bytes) {
    ml4f_word_t *to = (ml4f_word_t *)target;
    const ml4f_word_t *from = (const ml4f_word_t *)source;
    uint32_t words;
    for (words = bytes / word_bytes; words != 0u; words--) {
        *to++ = *from++;
        ML4F_NO_LIBRARY_CALL();
    }
}

static uint32_t input_size(const ml4f_header_t *model) {
    return ml4f_shape_size(ml4f_input_shape(model), model->input_type);
}

static uint32_t output_size(const ml4f_header_t *model) {
    return ml4f_shape_size(ml4f_output_shape(model), model->output_type);
}

/* ---- the test vector ---- */

typedef union {
    uint32_t bits;
    float value;
} ml4f_float_t;

static ml4f_float_t float_at(const void *words, uint32_t index) {
    ml4f_float_t result;
    result.bits = ((const ml4f_word_t *)words)[index];
    return result;
}

static float magnitude(float value) { return value < 0.0f ? -value : value; }

/* By their bits: a comparison of NaN with itself does not survive -ffast-math. */
static int is_finite(ml4f_float_t number) { return (number.bits & 0x7f800000u) != 0x7f800000u; }

static int is_nan(ml4f_float_t number) { return (number.bits & 0x7fffffffu) > 0x7f800000u; }

static float largest_magnitude(const void *words, uint32_t elements) {
    float largest = 0.0f;
    uint32_t i;
    for (i = 0u; i < elements; i++) {
        ml4f_float_t number = float_at(words, i);
        if (is_finite(number) && magnitude(number.value) > largest) {
            largest = magnitude(number.value);
        }
    }
    return largest;
}

static int is_close(ml4f_float_t actual, ml4f_float_t expected, float floor_limit) {
    const float relative_tolerance = 1e-3f;
    if (!is_finite(actual) || !is_finite(expected)) {
        return (is_nan(actual) && is_nan(expected)) || actual.bits == expected.bits;
    }
    return magnitude(actual.value - expected.value) <= relative_tolerance * magnitude(expected.value) + floor_limit;
}

int ml4f_test(const ml4f_header_t *model, uint8_t *arena) {
    const uint8_t *object = (const uint8_t *)(const void *)model;
    const void *expected;
    float floor_limit;
    uint32_t elements;
    uint32_t i;
    int status;

    if (model == NULL || arena == NULL) {
        return ML4F_E_NULL;
    }
    if (!ml4f_is_valid_header(model)) {
        return ML4F_E_HEADER;
    }
    if (!is_word_aligned(arena)) {
        return ML4F_E_ALIGNMENT;
    }
    if (model->test_input_offset == 0u || model->test_output_offset == 0u) {
        return ML4F_NO_TEST_DATA;
    }
    copy_words(arena + model->input_offset, object + model->test_input_offset, input_size(model));
    status = ml4f_invoke(model, arena);
    if (status < 0) {
        return status;
    }
    expected = object + model->test_output_offset;
    elements = ml4f_shape_elements(ml4f_output_shape(model));
    floor_limit = 1e-5f * largest_magnitude(expected, elements) + 1e-6f;
    for (i = 0u; i < elements; i++) {
        if (!is_close(float_at(arena + model->output_offset, i), float_at(expected, i), floor_limit)) {
            return ML4F_E_TEST_MISMATCH;
        }
    }
    return ML4F_OK;
}

/* ---- with an arena of our own ---- */

#ifndef ML4F_ALLOC
#if defined(ML4F_STATIC_ARENA_BYTES)

static uint32_t static_arena[((ML4F_STATIC_ARENA_BYTES) + 3u) / 4u];
static volatile int static_arena_is_taken;

static void *take_static_arena(size_t bytes) {
    if (static_arena_is_taken || bytes > sizeof(static_arena)) {
        return NULL;
    }
    static_arena_is_taken = 1;
    return static_arena;
}

static void release_static_arena(void *arena) {
    (void)arena;
    static_arena_is_taken = 0;
}

#define ML4F_ALLOC(bytes) take_static_arena(bytes)
#define ML4F_FREE(pointer) release_static_arena(pointer)

#elif defined(ML4F_USE_MALLOC)

#include <stdlib.h>
#define ML4F_ALLOC(bytes) malloc(bytes)
#define ML4F_FREE(pointer) free(pointer)

#else

#define ML4F_ALLOC(bytes) ((void)(bytes), (void *)NULL)
#define ML4F_FREE(pointer) ((void)(pointer))

#endif
#endif

/* Allocates an arena and runs the model in it. On success `*arena` is the arena, for the caller to free. */
static int invoke_in_new_arena(const ml4f_header_t *model, const float *input, uint8_t **arena) {
    uint8_t *memory;
    int status;

    if (model == NULL || input == NULL) {
        return ML4F_E_NULL;
    }
    if (!ml4f_is_valid_header(model)) {
        return ML4F_E_HEADER;
    }
    memory = (uint8_t *)ML4F_ALLOC((size_t)model->arena_bytes);
    if (memory == NULL) {
        return ML4F_E_NO_MEMORY;
    }
    status = is_word_aligned(memory) ? ML4F_OK : ML4F_E_ALIGNMENT;
    if (status == ML4F_OK) {
        copy_words(memory + model->input_offset, input, input_size(model));
        status = ml4f_invoke(model, memory);
    }
    if (status < 0) {
        ML4F_FREE(memory);
        return status;
    }
    *arena = memory;
    return ML4F_OK;
}

int ml4f_full_invoke(const ml4f_header_t *model, const float *input, float *output) {
    uint8_t *arena = NULL;
    int status;

    if (output == NULL) {
        return ML4F_E_NULL;
    }
    status = invoke_in_new_arena(model, input, &arena);
    if (status < 0) {
        return status;
    }
    copy_words(output, arena + model->output_offset, output_size(model));
    ML4F_FREE(arena);
    return ML4F_OK;
}

static int argmax_of_words(const void *words, uint32_t size) {
    int best = ML4F_E_NO_MAXIMUM;
    float largest = 0.0f;
    uint32_t i;
    for (i = 0u; i < size; i++) {
        ml4f_float_t number = float_at(words, i);
        if (!is_nan(number) && (best < 0 || number.value > largest)) {
            best = (int)i;
            largest = number.value;
        }
    }
    return best;
}

int ml4f_argmax(const float *data, uint32_t size) { return argmax_of_words(data, size); }

int ml4f_full_invoke_argmax(const ml4f_header_t *model, const float *input) {
    uint8_t *arena = NULL;
    int status = invoke_in_new_arena(model, input, &arena);
    if (status < 0) {
        return status;
    }
    status = argmax_of_words(arena + model->output_offset, ml4f_shape_elements(ml4f_output_shape(model)));
    ML4F_FREE(arena);
    return status;
}
