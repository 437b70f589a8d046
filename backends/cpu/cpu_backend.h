// The CPU device: buffers are host memory, a plan is a list of phases run by the thread pool.
#pragma once
#include <functional>
#include <memory>

#include "backends/registry.h"
#include "core/backend.h"

namespace quant {

struct CpuBuffer : Buffer {
    uint8_t* data = nullptr;
    std::shared_ptr<uint8_t> owned;  // empty: adopted
};
inline uint8_t* host_pointer(const Slice& s) {
    return static_cast<CpuBuffer*>(s.buffer)->data + s.offset;
}

// Where a node's operands lie; usable while recording, too.
inline int row_count(const Operand& o, const Step& step) {
    return o.rows == Rows::step ? step.rows() : step.outputs();
}
inline float* f32_row(const Operand& o, int64_t row) {
    return reinterpret_cast<float*>(host_pointer(o.data)) + row * o.stride;
}
inline uint8_t* codes_row(const Operand& o, int64_t row) {
    return host_pointer(o.data) + row * o.stride;
}
inline RowScale* row_scales(const Operand& o) {
    return reinterpret_cast<RowScale*>(host_pointer(o.data) + o.row_scales);
}
inline const float* bias_of(const Weight& w) {
    return w.bias.buffer ? reinterpret_cast<const float*>(host_pointer(w.bias)) : nullptr;
}
WeightView stored_view(const Weight& w);  // of a weight in layout_stored

// One layer's part of a page; CacheShape says what is where in it.
inline uint8_t* cache_layer(const CacheStorage& cache, int32_t page, int layer) {
    const Buffer* chunk = cache.chunks[page / cache.pages_per_chunk];
    return static_cast<const CpuBuffer*>(chunk)->data + (page % cache.pages_per_chunk) * cache.shape.page_bytes() +
           layer * cache.shape.layer_bytes();
}

// One fork-join: items(step) independent pieces of work, then a join. Nothing here allocates when it runs.
struct Phase {
    std::function<int(const Step& step)> items;
    std::function<void(const Step& step, int item, uint8_t* scratch)> run;  // scratch: this thread's own
};

// Collects the phases of a plan. An emit function calls phase() one or more times.
class Recorder {
  public:
    Recorder(int max_rows, int threads, bool one_stream)
        : max_rows(max_rows), threads(threads), one_stream(one_stream) {}
    const int max_rows;  // rows of a step are at most this
    const int threads;
    const bool one_stream;  // Processor::one_stream
    void phase(std::function<int(const Step&)> items, std::function<void(const Step&, int, uint8_t*)> run,
               size_t scratch_bytes = 0);
    // Memory that the phases of one node share; other nodes of the plan reuse it. The address is only known when the
    // plan is complete, so phases get it through the returned pointer-to-pointer.
    uint8_t* const* workspace(size_t bytes);

    std::vector<Phase> phases;
    size_t scratch_bytes = 0, workspace_bytes = 0;
    std::unique_ptr<uint8_t*> workspace_address{new uint8_t*(nullptr)};
};

// Kernel tables by instruction set, each in its own file (backends/cpu/kernels_*.cpp); best rows first. A device's
// table is its instruction set's rows, then the reference rows. `exact` leaves out kernels that round float activations
// to int8 or bf16.
void append_reference_kernels(std::vector<Kernel>& table);
void append_baseline_kernels(std::vector<Kernel>& table, bool exact);
#if defined(__x86_64__) || defined(_M_X64)
void append_avx2_kernels(std::vector<Kernel>& table, bool exact);
void append_avxvnni_kernels(std::vector<Kernel>& table, bool exact);
void append_avx512_kernels(std::vector<Kernel>& table, bool exact);  // AVX-512 F BW VL DQ VNNI
void append_avx512_bf16_kernels(std::vector<Kernel>& table, bool exact);
void append_amx_kernels(std::vector<Kernel>& table, bool exact);
#endif
// 32-bit: with VFPv4. dotprod and i8mm exist on 64-bit ARM only.
void append_neon_kernels(std::vector<Kernel>& table, bool exact);
void append_neon_dotprod_kernels(std::vector<Kernel>& table, bool exact);
void append_neon_i8mm_kernels(std::vector<Kernel>& table, bool exact);

// A device of this kernel table.
std::unique_ptr<Backend> create_cpu_backend(std::string name, std::vector<Kernel> table, const DeviceServices& services,
                                            bool one_stream);

}  // namespace quant
