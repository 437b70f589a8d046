// What the device can do at most, measured: the limits that kernels are compared with.
#include <algorithm>

#include "backends/cuda/device.cuh"
#include "backends/cuda/kernels.h"

namespace quant {
namespace cuda {
namespace {

constexpr int read_threads = 512, read_unroll = 8, mma_threads = 512, mma_accumulators = 8, mma_rounds = 4096;

__global__ void read_all(const uint4* from, int64_t vectors, float* sink) {
    uint32_t seen = 0;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * read_threads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * read_threads + threadIdx.x; i < vectors;
         i += read_unroll * stride) {
        uint4 v[read_unroll];
#pragma unroll
        for (int j = 0; j < read_unroll; ++j)
            v[j] = i + j * stride < vectors ? __ldcs(from + i + j * stride) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < read_unroll; ++j) seen ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (seen == 0x12345678u) *sink = 1;
}

__global__ void __launch_bounds__(mma_threads) multiply_f16(float* sink) {
    float c[mma_accumulators][4] = {};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = 0x3c003c00u + threadIdx.x * 77 + i;
    for (int i = 0; i < 2; ++i) b[i] = 0x2c002c00u + threadIdx.x * 55 + i;
    for (int round = 0; round < mma_rounds; ++round)
#pragma unroll
        for (int i = 0; i < mma_accumulators; ++i) mma_f16(c[i], a, b[0], b[1]);
    float sum = 0;
    for (int i = 0; i < mma_accumulators; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
    if (sum == 12345.f) *sink = sum;
}

__global__ void __launch_bounds__(mma_threads) multiply_int8(float* sink) {
    int c[mma_accumulators][4] = {};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = 0x01020304u + threadIdx.x * 77 + i;
    for (int i = 0; i < 2; ++i) b[i] = 0x05060708u + threadIdx.x * 55 + i;
    for (int round = 0; round < mma_rounds; ++round)
#pragma unroll
        for (int i = 0; i < mma_accumulators; ++i) mma_int8<true>(c[i], a, b[0], b[1]);
    int sum = 0;
    for (int i = 0; i < mma_accumulators; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
    if (sum == 12345) *sink = 1;
}

// Seconds that one launch takes: the best of several.
template <class Launch>
double best_time(cudaStream_t stream, Launch launch) {
    cudaEvent_t begin = nullptr, end = nullptr;
    check(cudaEventCreate(&begin), "event");
    cudaError_t error = cudaEventCreate(&end);
    double best = 0;
    for (int i = 0; i < 6 && error == cudaSuccess; ++i) {
        float milliseconds = 0;
        error = cudaEventRecord(begin, stream);
        launch();
        if (error == cudaSuccess) error = cudaGetLastError();
        if (error == cudaSuccess) error = cudaEventRecord(end, stream);
        if (error == cudaSuccess) error = cudaEventSynchronize(end);
        if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, begin, end);
        const double seconds = milliseconds / 1e3;
        if (i > 0 && (best == 0 || seconds < best)) best = seconds;
    }
    cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    check(error, "measure");
    return best;
}

constexpr double mma_operations(int k) {
    return 2.0 * 16 * 8 * k * mma_accumulators * mma_rounds * (mma_threads / 32);
}

}  // namespace

double measure_reads(const DeviceTraits& traits, cudaStream_t stream, const uint8_t* from, size_t bytes, float* sink) {
    double best = 0;
    for (int blocks : {2, 4, 8, 16}) {
        const double seconds = best_time(stream, [&] {
            read_all<<<blocks * traits.multiprocessors, read_threads, 0, stream>>>(
                reinterpret_cast<const uint4*>(from), static_cast<int64_t>(bytes / sizeof(uint4)), sink);
        });
        best = std::max(best, static_cast<double>(bytes) / seconds);
    }
    return best;
}

double measure_f16(const DeviceTraits& traits, cudaStream_t stream, float* sink) {
    const double seconds =
        best_time(stream, [&] { multiply_f16<<<traits.multiprocessors, mma_threads, 0, stream>>>(sink); });
    return mma_operations(16) * traits.multiprocessors / seconds;
}

double measure_int8(const DeviceTraits& traits, cudaStream_t stream, float* sink) {
    const double seconds =
        best_time(stream, [&] { multiply_int8<<<traits.multiprocessors, mma_threads, 0, stream>>>(sink); });
    return mma_operations(32) * traits.multiprocessors / seconds;
}

}  // namespace cuda
}  // namespace quant
