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

/* ---- tensors ---- */

/* Of version 2: what the words behind arena_bytes are. */
typedef struct {
    uint32_t inputs;
    uint32_t outputs;
    uint32_t table_offset;
    uint32_t reserved[5];
} ml4f_tables_t;

/* An entry of the table: inputs first. */
typedef struct {
    uint32_t name_offset;
    uint32_t type;
    uint32_t offset;
    uint32_t shape_offset;
} ml4f_entry_words_t;

static int has_tables(const ml4f_header_t *header) { return header->magic1 == ML4F_MAGIC1_2; }

static const ml4f_tables_t *tables_of(const ml4f_header_t *header) {
    return (const ml4f_tables_t *)(const void *)&header->input_offset;
}

static const uint8_t *bytes_of(const ml4f_header_t *header) { return (const uint8_t *)(const void *)header; }

static const ml4f_entry_words_t *entry_of(const ml4f_header_t *header, uint32_t index) {
    return (const ml4f_entry_words_t *)(const void *)(bytes_of(header) + tables_of(header)->table_offset) + index;
}

static const uint32_t *words_at(const ml4f_header_t *header, uint32_t offset) {
    return (const uint32_t *)(const void *)(bytes_of(header) + offset);
}

/* Is there a shape at `offset`, with its end within the header? */
static int has_valid_shape(const ml4f_header_t *header, uint32_t offset) {
    const uint32_t *end = words_at(header, header->header_size);
    if (!is_inside(offset, word_bytes, (uint32_t)sizeof(ml4f_header_t), header->header_size)) {
        return 0;
    }
    return skip_bounded_shape(words_at(header, offset), words_between(words_at(header, offset), end)) != NULL;
}

/* Is there a name at `offset`, with its end within the header? */
static int has_valid_name(const ml4f_header_t *header, uint32_t offset) {
    uint32_t i;
    for (i = offset; i < header->header_size; i++) {
        if (bytes_of(header)[i] == 0u) {
            return 1;
        }
    }
    return 0;
}

/* Checks the sizes of `count` tensors from entry `first` on, in the arena and in the test vector at `test_offset`. */
static int are_valid_entries(const ml4f_header_t *header, uint32_t first, uint32_t count, uint32_t test_offset) {
    uint32_t i;
    for (i = first; i < first + count; i++) {
        const ml4f_entry_words_t *entry = entry_of(header, i);
        uint32_t bytes;
        if (!has_valid_name(header, entry->name_offset) || !has_valid_shape(header, entry->shape_offset)) {
            return 0;
        }
        bytes = ml4f_shape_size(words_at(header, entry->shape_offset), entry->type);
        if (bytes == 0u || !is_inside(entry->offset, bytes, 0u, header->arena_bytes)) {
            return 0;
        }
        if (test_offset != 0u) {
            if (!is_inside(test_offset, bytes, header->header_size, header->object_size)) {
                return 0;
            }
            test_offset += bytes;
        }
    }
    return 1;
}

static int has_valid_tables(const ml4f_header_t *header) {
    const ml4f_tables_t *tables = tables_of(header);
    uint32_t table_bytes;
    uint32_t i;
    for (i = 0u; i < 5u; i++) {
        if (tables->reserved[i] != 0u) {
            return 0;
        }
    }
    if (tables->inputs == 0u || tables->inputs > ML4F_MAX_TENSORS || tables->outputs == 0u ||
        tables->outputs > ML4F_MAX_TENSORS) {
        return 0;
    }
    table_bytes = (tables->inputs + tables->outputs) * (uint32_t)sizeof(ml4f_entry_words_t);
    if (!is_inside(tables->table_offset, table_bytes, (uint32_t)sizeof(ml4f_header_t), header->header_size)) {
        return 0;
    }
    return are_valid_entries(header, 0u, tables->inputs, header->test_input_offset) &&
           are_valid_entries(header, tables->inputs, tables->outputs, header->test_output_offset);
}

/* Checks, for version 1, whatever the shapes decide: sizes of input and output in the arena and in the test vector. */
static int has_valid_shapes(const ml4f_header_t *header) {
    const uint32_t *input_shape = (const uint32_t *)(const void *)(header + 1);
    const uint32_t *end = words_at(header, header->header_size);
    const uint32_t *output_shape = skip_bounded_shape(input_shape, words_between(input_shape, end));
    uint32_t input_bytes;
    uint32_t output_bytes;

    if ((header->reserved[0] | header->reserved[1] | header->reserved[2] | header->reserved[3]) != 0u) {
        return 0;
    }
    if (header->input_type != ML4F_TYPE_FLOAT32 || header->output_type != ML4F_TYPE_FLOAT32) {
        return 0;
    }
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
    if (header->magic0 != ML4F_MAGIC0 || (header->magic1 != ML4F_MAGIC1 && header->magic1 != ML4F_MAGIC1_2)) {
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
    return has_tables(header) ? has_valid_tables(header) : has_valid_shapes(header);
}

int ml4f_is_valid_object(const void *data, size_t bytes) {
    const ml4f_header_t *header = (const ml4f_header_t *)data;
    if (header == NULL || !is_word_aligned(header) || bytes < sizeof(ml4f_header_t) || bytes < header->object_size) {
        return 0;
    }
    return ml4f_is_valid_header(header);
}

/* ---- shapes ---- */

/* The word behind a shape's end. */
static const uint32_t *skip_shape(const uint32_t *shape) {
    while (*shape != 0u) {
        shape++;
    }
    return shape + 1;
}

uint32_t ml4f_input_count(const ml4f_header_t *model) { return has_tables(model) ? tables_of(model)->inputs : 1u; }

uint32_t ml4f_output_count(const ml4f_header_t *model) { return has_tables(model) ? tables_of(model)->outputs : 1u; }

static void describe_entry(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor) {
    const ml4f_entry_words_t *entry = entry_of(model, index);
    tensor->name = (const char *)(const void *)(bytes_of(model) + entry->name_offset);
    tensor->type = entry->type;
    tensor->offset = entry->offset;
    tensor->shape = words_at(model, entry->shape_offset);
}

static void describe_input(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor) {
    if (has_tables(model)) {
        describe_entry(model, index, tensor);
        return;
    }
    tensor->name = "";
    tensor->type = model->input_type;
    tensor->offset = model->input_offset;
    tensor->shape = (const uint32_t *)(const void *)(model + 1);
}

static void describe_output(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor) {
    if (has_tables(model)) {
        describe_entry(model, tables_of(model)->inputs + index, tensor);
        return;
    }
    tensor->name = "";
    tensor->type = model->output_type;
    tensor->offset = model->output_offset;
    tensor->shape = skip_shape((const uint32_t *)(const void *)(model + 1));
}

int ml4f_input(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor) {
    if (model == NULL || tensor == NULL) {
        return ML4F_E_NULL;
    }
    if (index >= ml4f_input_count(model)) {
        return ML4F_E_INDEX;
    }
    describe_input(model, index, tensor);
    return ML4F_OK;
}

int ml4f_output(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor) {
    if (model == NULL || tensor == NULL) {
        return ML4F_E_NULL;
    }
    if (index >= ml4f_output_count(model)) {
        return ML4F_E_INDEX;
    }
    describe_output(model, index, tensor);
    return ML4F_OK;
}

const uint32_t *ml4f_input_shape(const ml4f_header_t *model) {
    ml4f_tensor_t tensor;
    describe_input(model, 0u, &tensor);
    return tensor.shape;
}

const uint32_t *ml4f_output_shape(const ml4f_header_t *model) {
    ml4f_tensor_t tensor;
    describe_output(model, 0u, &tensor);
    return tensor.shape;
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
    if ((type != ML4F_TYPE_FLOAT32 && type != ML4F_TYPE_INT32) || elements > UINT32_MAX / word_bytes) {
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

static uint32_t tensor_size(const ml4f_tensor_t *tensor) { return ml4f_shape_size(tensor->shape, tensor->type); }

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

/* Is an output in the arena as expected? */
static int is_as_expected(const ml4f_tensor_t *tensor, const uint8_t *arena, const uint8_t *expected) {
    const uint32_t elements = ml4f_shape_elements(tensor->shape);
    const float floor_limit =
        tensor->type == ML4F_TYPE_FLOAT32 ? 1e-5f * largest_magnitude(expected, elements) + 1e-6f : 0.0f;
    uint32_t i;
    for (i = 0u; i < elements; i++) {
        ml4f_float_t actual = float_at(arena + tensor->offset, i);
        ml4f_float_t wanted = float_at(expected, i);
        if (tensor->type == ML4F_TYPE_FLOAT32 ? !is_close(actual, wanted, floor_limit) : actual.bits != wanted.bits) {
            return 0;
        }
    }
    return 1;
}

int ml4f_test(const ml4f_header_t *model, uint8_t *arena) {
    const uint8_t *data;
    ml4f_tensor_t tensor;
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
    data = bytes_of(model) + model->test_input_offset;
    for (i = 0u; i < ml4f_input_count(model); i++) {
        describe_input(model, i, &tensor);
        copy_words(arena + tensor.offset, data, tensor_size(&tensor));
        data += tensor_size(&tensor);
    }
    status = ml4f_invoke(model, arena);
    if (status < 0) {
        return status;
    }
    data = bytes_of(model) + model->test_output_offset;
    for (i = 0u; i < ml4f_output_count(model); i++) {
        describe_output(model, i, &tensor);
        if (!is_as_expected(&tensor, arena, data)) {
            return ML4F_E_TEST_MISMATCH;
        }
        data += tensor_size(&tensor);
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
    ml4f_tensor_t tensor;
    uint8_t *memory;
    int status;

    if (model == NULL || input == NULL) {
        return ML4F_E_NULL;
    }
    if (!ml4f_is_valid_header(model)) {
        return ML4F_E_HEADER;
    }
    if (has_tables(model)) {
        return ML4F_E_SEVERAL;
    }
    describe_input(model, 0u, &tensor);
    memory = (uint8_t *)ML4F_ALLOC((size_t)model->arena_bytes);
    if (memory == NULL) {
        return ML4F_E_NO_MEMORY;
    }
    status = is_word_aligned(memory) ? ML4F_OK : ML4F_E_ALIGNMENT;
    if (status == ML4F_OK) {
        copy_words(memory + tensor.offset, input, tensor_size(&tensor));
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
    ml4f_tensor_t tensor;
    int status;

    if (output == NULL) {
        return ML4F_E_NULL;
    }
    status = invoke_in_new_arena(model, input, &arena);
    if (status < 0) {
        return status;
    }
    describe_output(model, 0u, &tensor);
    copy_words(output, arena + tensor.offset, tensor_size(&tensor));
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
