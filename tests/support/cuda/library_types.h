/*
 * library_types.h - element types of NVIDIA's libraries, for the emulated toolkit: the names and
 * values of the real header that the emulation knows.
 */
#ifndef COHORT_EMULATED_LIBRARY_TYPES_H
#define COHORT_EMULATED_LIBRARY_TYPES_H

typedef enum cudaDataType_t {
    CUDA_R_32F = 0,
    CUDA_R_64F = 1,
    CUDA_R_16F = 2,
    CUDA_R_8I = 3,
    CUDA_R_32I = 10,
    CUDA_R_16BF = 14
} cudaDataType;

#ifndef __cplusplus
typedef enum cudaDataType_t cudaDataType_t;
#endif

#endif
