// The kernel table, best rows first (kernels.cpp), and what probe() runs (probe.cu).
#pragma once
#include <vector>

#include "backends/cuda/recorder.h"

namespace quant {
namespace cuda {

// `exact` leaves out kernels that round float activations to the weights' 16 bit type.
std::vector<Kernel> kernel_table(const DeviceTraits& traits, bool exact);

// Streaming reads of `bytes` bytes at `from`: as many bytes a second as the best of a few tries gives.
double measure_reads(const DeviceTraits& traits, cudaStream_t stream, const uint8_t* from, size_t bytes, float* sink);
// Tensor core operations per second (mma.sync, which on Hopper reaches about two thirds of wgmma's), a multiplication
// and an addition counted as two.
double measure_f16(const DeviceTraits& traits, cudaStream_t stream, float* sink);
double measure_int8(const DeviceTraits& traits, cudaStream_t stream, float* sink);

}  // namespace cuda
}  // namespace quant
