/* SPDX-License-Identifier: MIT
 *
 * ml4f.h - loads and runs objects made by the ml4f compiler on an Arm Cortex-M with an FPU (M4F, M7, M33).
 *
 * An object is one block of bytes: a header of 32-bit little-endian words, position-independent Thumb-2 code, weights,
 * and optionally one test vector. It runs in place from any word-aligned address, in flash or in RAM, and works in an
 * arena that the caller supplies and whose size the header states. Nothing in here needs a heap or a C library.
 *
 * The FPU must be enabled (CPACR, coprocessors 10 and 11) before a model runs. A loader that has just written an object
 * to RAM on a core with caches or a write buffer must clean them and issue DSB and ISB first.
 *
 * Two calls may run at the same time as long as they do not share an arena.
 */
#ifndef ML4F_H
#define ML4F_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ML4F_MAGIC0 0x30470f62u
#define ML4F_MAGIC1 0x46344c4du   /* "ML4F": version 1, one float32 input and one float32 output */
#define ML4F_MAGIC1_2 0x32344c4du /* "ML42": version 2, a table of inputs and outputs */

/* Element types. Version 1 of the header knows float32 alone. Every element takes four bytes. */
#define ML4F_TYPE_FLOAT32 1u
#define ML4F_TYPE_INT32 2u

/* More dimensions than this in one shape are refused. */
#define ML4F_MAX_RANK 16u

/* More inputs, or more outputs, than this are refused. */
#define ML4F_MAX_TENSORS 256u

/* What the functions return: 0 or a positive value is fine, a negative value is an error. */
#define ML4F_OK 0
#define ML4F_NO_TEST_DATA 1        /* ml4f_test: the object carries no test vector */
#define ML4F_E_NO_MAXIMUM (-1)     /* argmax of nothing, or of NaN alone */
#define ML4F_E_HEADER (-2)         /* not a valid header */
#define ML4F_E_ALIGNMENT (-3)      /* the arena is not word aligned */
#define ML4F_E_NO_MEMORY (-4)      /* no arena could be allocated, see ML4F_ALLOC in ml4f.c */
#define ML4F_E_TEST_MISMATCH (-5)  /* ml4f_test: the output differs from the expected one */
#define ML4F_E_UNSUPPORTED (-6)    /* this processor does not run Arm code */
#define ML4F_E_NULL (-7)           /* a pointer that must not be NULL is NULL */
#define ML4F_E_INDEX (-8)          /* there is no input or output of this number */
#define ML4F_E_SEVERAL (-9)        /* ml4f_full_invoke: the model has several inputs or outputs, or integer ones */

/* Version 1; of version 2 the words up to arena_bytes mean the same, see docs/object-format.md for the rest. Offsets and sizes in bytes: those of the object count from the header's first byte, those of the arena
 * from the arena's first byte. The input shape follows the struct, then the output shape, each with a 0 behind it and
 * without a batch dimension: ml4f_input_shape() and ml4f_output_shape() find them. */
typedef struct ml4f_header {
    uint32_t magic0;
    uint32_t magic1;
    uint32_t header_size;        /* also the offset of the entry point */
    uint32_t object_size;        /* a multiple of 16 */
    uint32_t weights_offset;
    uint32_t test_input_offset;  /* 0: none */
    uint32_t test_output_offset; /* 0: none */
    uint32_t arena_bytes;
    uint32_t input_offset;       /* in the arena */
    uint32_t input_type;
    uint32_t output_offset;      /* in the arena */
    uint32_t output_type;
    uint32_t reserved[4];        /* 0 */
} ml4f_header_t;

/* 1 if the header, of either version, makes sense throughout, else 0. Reads the fixed part of the header, the table of
 * tensors, their shapes and names, and never beyond header_size. Believes object_size: where the number of bytes
 * at hand is known, prefer ml4f_is_valid_object(). NULL and unaligned pointers are refused. */
int ml4f_is_valid_header(const ml4f_header_t *header);

/* 1 if `bytes` bytes at `data` hold a whole valid object (more may follow it), else 0. Never reads beyond `bytes`. */
int ml4f_is_valid_object(const void *data, size_t bytes);

/* An input or output. `name` is empty in version 1. `shape`: dimensions, then 0. The data lies at arena + offset. */
typedef struct ml4f_tensor {
    const char *name;
    uint32_t type;
    uint32_t offset;
    const uint32_t *shape;
} ml4f_tensor_t;

/* How many inputs and outputs a valid model has. */
uint32_t ml4f_input_count(const ml4f_header_t *model);
uint32_t ml4f_output_count(const ml4f_header_t *model);

/* Describes an input or output of a valid model. Returns 0, ML4F_E_INDEX or ML4F_E_NULL. */
int ml4f_input(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor);
int ml4f_output(const ml4f_header_t *model, uint32_t index, ml4f_tensor_t *tensor);

/* Runs the model: the caller has put each input at arena + its offset and finds each output at arena + its offset.
 * `arena` is word aligned and has arena_bytes bytes. The input may have been overwritten afterwards.
 * Returns 0 or a negative error. */
int ml4f_invoke(const ml4f_header_t *model, uint8_t *arena);

/* Runs the object's own test vector and compares each output with the expected one. The difference may be 1e-3 of the
 * expected value, plus 1e-5 of the largest expected value, plus 1e-6. An infinity must be met exactly, a NaN by a NaN.
 * Returns 0 if all agree, ML4F_NO_TEST_DATA (1) if the object has no test input or no test output, which is no failure,
 * or a negative error. */
int ml4f_test(const ml4f_header_t *model, uint8_t *arena);

/* Shapes of the first input and the first output of a valid model: dimensions, then 0. */
const uint32_t *ml4f_input_shape(const ml4f_header_t *model);
const uint32_t *ml4f_output_shape(const ml4f_header_t *model);

/* Number of elements: the product of the dimensions, 1 for no dimension; 0 if it does not fit 32 bits. */
uint32_t ml4f_shape_elements(const uint32_t *shape);

/* Size in bytes; 0 if the type is unknown or the size does not fit 32 bits. */
uint32_t ml4f_shape_size(const uint32_t *shape, uint32_t type);

/* Index of the largest of `size` values, the first one on a tie. NaN never wins; ML4F_E_NO_MAXIMUM if there is nothing
 * else. */
int ml4f_argmax(const float *data, uint32_t size);

/* Allocates an arena, copies the input in, runs, and copies the output out. `input` and `output` have as many elements
 * as the shapes say; the model has one of each, float32. How an arena is allocated is decided when ml4f.c is compiled: see ML4F_ALLOC there.
 * Returns 0 or a negative error. */
int ml4f_full_invoke(const ml4f_header_t *model, const float *input, float *output);

/* The same, but returns the index of the largest output, or a negative error. */
int ml4f_full_invoke_argmax(const ml4f_header_t *model, const float *input);

#ifdef __cplusplus
}
#endif

#endif
