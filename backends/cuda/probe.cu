// What the device can do at most, measured: the limits that kernels are compared with.
#include <algorithm>
#include <type_traits>

#include "backends/cuda/device.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/wgmma.cuh"

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

// Hopper's own products reach more.
constexpr int wgmma_threads = 256, wgmma_rounds = 1024, wgmma_products = 16;  // in a round
template <class Sum>
__global__ void __launch_bounds__(wgmma_threads, 1) multiply_wgmma(float* sink) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr bool is_int = std::is_same<Sum, int>::value;
    __shared__ alignas(1024) uint32_t tile[4096];
    for (int i = threadIdx.x; i < 4096; i += wgmma_threads)  // f16 from 0.25 to 0.5 and -0.5, any int8
        tile[i] = is_int ? i * 2654435761u : 0x34003400u | (i * 2654435761u & 0x83ff83ffu);
    uint32_t a[4][4];
    for (int k = 0; k < 4; ++k)
        for (int i = 0; i < 4; ++i) {
            const uint32_t random = (threadIdx.x * 16 + k * 4 + i) * 2246822519u;
            a[k][i] = is_int ? random : 0x34003400u | (random & 0x83ff83ffu);
        }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(tile));
    Sum d[2][64] = {};
    for (int round = 0; round < wgmma_rounds; ++round) {
        wgmma::fence();
#pragma unroll
        for (int i = 0; i < wgmma_products; ++i) {
            const uint64_t b = wgmma::descriptor(at + i / 2 % 4 * 32);
            if constexpr (is_int)
                wgmma::product_int8(d[i % 2], a[i / 2 % 4], b, 1);
            else
                wgmma::product_f16(d[i % 2], a[i / 2 % 4], b, 1);
        }
        wgmma::commit();
        wgmma::wait<0>();
    }
    Sum sum = 0;
    for (int i = 0; i < 64; ++i) sum += d[0][i] + d[1][i];
    if (sum == static_cast<Sum>(12345)) *sink = 1;
#endif
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

template <class Sum>
double measure_wgmma(const DeviceTraits& traits, cudaStream_t stream, float* sink) {
    const double seconds =
        best_time(stream, [&] { multiply_wgmma<Sum><<<traits.multiprocessors, wgmma_threads, 0, stream>>>(sink); });
    const int k = std::is_same<Sum, int>::value ? 32 : 16;
    return 2.0 * 64 * 128 * k * wgmma_products * wgmma_rounds * (wgmma_threads / 128) * traits.multiprocessors /
           seconds;
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
    if (traits.wgmma) return measure_wgmma<float>(traits, stream, sink);
    const double seconds =
        best_time(stream, [&] { multiply_f16<<<traits.multiprocessors, mma_threads, 0, stream>>>(sink); });
    return mma_operations(16) * traits.multiprocessors / seconds;
}

double measure_int8(const DeviceTraits& traits, cudaStream_t stream, float* sink) {
    if (traits.wgmma) return measure_wgmma<int>(traits, stream, sink);
    const double seconds =
        best_time(stream, [&] { multiply_int8<<<traits.multiprocessors, mma_threads, 0, stream>>>(sink); });
    return mma_operations(32) * traits.multiprocessors / seconds;
}

}  // namespace cuda
}  // namespace quant
