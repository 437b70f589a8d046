// What an emit function needs to launch kernels into the plan that is being captured.
#pragma once
#include <cuda_runtime.h>

#include <tuple>
#include <utility>

#include "backends/cuda/device_step.h"
#include "core/backend.h"

namespace quant {
namespace cuda {

struct CudaBuffer : Buffer {
    uint8_t* data = nullptr;
};
inline uint8_t* device_pointer(const Slice& s) {
    return static_cast<CudaBuffer*>(s.buffer)->data + s.offset;
}
inline float* f32_pointer(const Operand& o) {
    return reinterpret_cast<float*>(device_pointer(o.data));
}
inline RowScale* row_scales(const Operand& o) {
    return reinterpret_cast<RowScale*>(device_pointer(o.data) + o.row_scales);
}
inline const float* bias_of(const Weight& w) {
    return w.bias.buffer ? reinterpret_cast<const float*>(device_pointer(w.bias)) : nullptr;
}

struct DeviceTraits {
    int index = 0;
    int multiprocessors = 0;
    int architecture = 0;            // 90 = compute capability 9.0
    size_t shared_memory = 0;        // most that one block can have
    bool overlapped_launch = false;  // programmatic dependent launch
    bool wgmma = false;              // Hopper, and this build has its own kernels (sm_90a)
};

// Throws Error(QUANT_ERR_DEVICE) or std::bad_alloc if `error` is one.
void check(cudaError_t error, const char* what);

}  // namespace cuda

// Emit functions run twice: first to learn how much workspace the plan needs, then to launch.
class Recorder {
  public:
    Recorder(const cuda::DeviceTraits& traits, cudaStream_t stream, const int32_t* step, uint32_t* counters,
             int max_rows)
        : traits(traits), step(step), max_rows(max_rows), zeroed_counters(counters), stream_(stream) {}

    const cuda::DeviceTraits& traits;
    const int32_t* const step;
    const int max_rows;
    // Zero whenever a kernel starts: the last block to count itself sets its counter back.
    static constexpr int counters = 1 << 15;
    uint32_t* const zeroed_counters;
    // The rmsnorm or silu_mul whose result is this linear's input, if the linear is to compute it (fold.h).
    const Bound* producer = nullptr;
    // The silu_mul of this linear's result that the linear is to compute, too.
    const Bound* consumer = nullptr;
    // The weight that the plan reads after this node's, around its end (null: none), and whether as two halves in turn.
    const Weight* next_weight = nullptr;
    bool next_in_pairs = false;
    cuda::StepView view() const { return {step, max_rows}; }

    // Memory for this node alone; the next node's overwrites it.
    uint8_t* workspace(size_t bytes) {
        if (bytes > workspace_bytes_) workspace_bytes_ = bytes;
        return workspace_;
    }
    size_t workspace_bytes() const { return workspace_bytes_; }
    void begin_launching(uint8_t* workspace) {
        workspace_ = workspace;
        launching_ = true;
    }
    bool launching() const { return launching_; }

    // Every kernel must wait for its predecessor (cuda::wait_for_previous) before it touches memory that changes.
    template <class... Parameters, class... Arguments>
    void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments&&... arguments) {
        launch_clusters(kernel, 1, grid, block, shared_bytes, std::forward<Arguments>(arguments)...);
    }
    // In clusters of that many blocks.
    template <class... Parameters, class... Arguments>
    void launch_clusters(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, dim3 block, size_t shared_bytes,
                         Arguments&&... arguments) {
        if (!launching_ || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
        if (shared_bytes > (48u << 10))
            cuda::check(
                cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes)),
                "shared memory of a kernel");
        cudaLaunchConfig_t config{};
        config.gridDim = grid;
        config.blockDim = block;
        config.dynamicSmemBytes = shared_bytes;
        config.stream = stream_;
        cudaLaunchAttribute attributes[2] = {};
        config.attrs = attributes;
        const auto attribute = [&](cudaLaunchAttributeID id) -> cudaLaunchAttributeValue& {
            attributes[config.numAttrs].id = id;
            return attributes[config.numAttrs++].val;
        };
        if (cluster > 1) {
            cudaLaunchAttributeValue& shape = attribute(cudaLaunchAttributeClusterDimension);
            shape.clusterDim.x = cluster;
            shape.clusterDim.y = shape.clusterDim.z = 1;
        }
        if (traits.overlapped_launch && launched_)
            attribute(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
        std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
        std::apply(
            [&](auto&... value) {
                void* pointers[] = {&value...};
                cuda::check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers), "launch");
            },
            values);
        launched_ = true;
    }

  private:
    cudaStream_t stream_;
    uint8_t* workspace_ = nullptr;
    size_t workspace_bytes_ = 0;
    bool launching_ = false, launched_ = false;
};

}  // namespace quant
