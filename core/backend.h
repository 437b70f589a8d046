// The interface that a device implements. A backend is one device with one ordered stream of work. Nothing outside a
// backend reads a Buffer's memory except through read and write.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/graph.h"
#include "formats/layout.h"
#include "quant.h"  // quant_limits

namespace quant {

// ---- Memory -----------------------------------------------------------------------------------------------------

struct Buffer {  // backends derive their own
    size_t bytes = 0;
    virtual ~Buffer() = default;
};
struct Slice {
    Buffer* buffer = nullptr;
    size_t offset = 0, bytes = 0;
};
enum class Usage : uint8_t { weights, cache, activations };

// ---- Weights ----------------------------------------------------------------------------------------------------

// A matrix on a device. bias is f32[rows] or empty.
struct Weight {
    std::string name;  // of its (first) tensor, for messages
    Format format;
    Activation activation = Activation::f32;
    int64_t rows = 0, cols = 0;
    const Layout* layout = nullptr;
    Slice data, bias;
};

// ---- Step: all that changes from one run of a plan to the next -----------------------------------------------------

constexpr int page_positions = 64;

// The KV cache of the layers of one stage: pages of 64 positions. In a page, layer after layer, each part at a multiple
// of 64 bytes:
//     K codes   [kv_heads][head_dim][64]    f16, s8 or e4m3: the 64 positions of each dimension side by side
//     V codes   [kv_heads][64][head_dim]
//     K scales  [kv_heads][64]              f16; not in a cache of kind f16
//     V scales  [kv_heads][64]
// Kind f16: the value rounded to f16. s8 and e4m3: value = code * scale, where for each position and KV head
//     scale = f16(largest magnitude / 127 or 448), at most 65504; NaNs are passed over
//     code  = x * (1 / scale in f32, or 0 if the scale is 0), clamped to +-127 or +-448, rounded half to even; a NaN
//             becomes code 0 (s8) or NaN (e4m3).
struct CacheShape {
    int layers = 0, kv_heads = 0, head_dim = 0;
    CacheKind kind = CacheKind::f16;
    size_t code_bytes() const { return kind == CacheKind::f16 ? 2 : 1; }
    size_t head_bytes() const { return code_bytes() * head_dim * page_positions; }  // codes of a head's K, or V
    size_t head_scale_bytes() const { return kind == CacheKind::f16 ? 0 : 2 * page_positions; }
    size_t layer_bytes() const { return 2 * kv_heads * (head_bytes() + head_scale_bytes()); }
    size_t page_bytes() const { return layers * layer_bytes(); }
    // Where a KV head's parts begin in a layer.
    size_t keys(int head) const { return head * head_bytes(); }
    size_t values(int head) const { return (kv_heads + head) * head_bytes(); }
    size_t key_scales(int head) const { return 2 * kv_heads * head_bytes() + head * head_scale_bytes(); }
    size_t value_scales(int head) const { return key_scales(kv_heads + head); }
};
struct CacheStorage {
    CacheShape shape;
    int pages_per_chunk = 1;
    std::vector<Buffer*> chunks;  // page p: chunk p / pages_per_chunk, at (p % pages_per_chunk) * page_bytes
};

// The rows of one sequence are consecutive in a step, at ascending positions.
struct StepSequence {
    int first_row = 0, rows = 0;
    int first_position = 0;
    int first_page = 0;  // its page table: Step::pages[first_page + position / 64]
};
struct Step {
    std::vector<int32_t> tokens, positions;  // [rows]
    std::vector<int32_t> output_rows;        // [outputs]
    std::vector<StepSequence> sequences;
    std::vector<int32_t> pages;
    const CacheStorage* cache = nullptr;
    // When it becomes true the backend may stop early; results are then undefined.
    const std::atomic<bool>* cancelled = nullptr;
    int rows() const { return static_cast<int>(tokens.size()); }
    int outputs() const { return static_cast<int>(output_rows.size()); }
};

// ---- Kernels, plans, devices ----------------------------------------------------------------------------------------

struct Operand {  // where a node's value lies in a plan; views carry their parent's memory and stride
    ValueType type = ValueType::f32;
    Rows rows = Rows::step;
    int64_t cols = 0, stride = 0;  // stride: elements (f32) or bytes (codes) from row to row
    Slice data;                    // f32: starts at the first column; quantized: codes, then RowScale[max rows]
    size_t row_scales = 0;         // quantized: offset of RowScale[0] from data.offset
};
struct Kernel;
struct Bound {  // a node with its memory and the kernel that runs it
    Node node;
    const Kernel* kernel = nullptr;
    Operand in[4], out;
};

// Whether they share memory.
bool overlap(const Slice& a, const Slice& b);
// How many inputs of the nodes are this value of the graph.
int readers(const std::vector<Bound>& nodes, int value);

class Recorder;  // each backend's own

// One row of a backend's kernel table: its only claim. The first row whose op matches and that accepts the node runs.
struct Kernel {
    const char* name;
    Op op;
    const Layout* weights;  // of a linear's weight; null for other ops
    // weight: the node's weight (its layout and data not yet set when choosing at load); null for ops without.
    bool (*accepts)(const Node& node, const Weight* weight, const Value* in0, const Value* out);
    void (*emit)(Recorder& recorder, const Bound& bound);
    // What the kernel itself rounds float activations to ("s8:g32"), for the contract; null: nothing.
    const char* rounds_to = nullptr;
};

struct Plan {  // backends derive their own
    virtual ~Plan() = default;
};

class Backend {
  public:
    virtual ~Backend() = default;
    virtual const std::string& name() const = 0;  // "cpu:avx512"
    virtual const std::vector<Kernel>& kernels() const = 0;
    // Rows that one step should have at most: enough to reuse each weight from the cache.
    virtual int step_rows() const { return 512; }
    // Failures throw Error(QUANT_ERR_DEVICE) or std::bad_alloc.
    virtual Buffer* alloc(size_t bytes, Usage usage) = 0;
    virtual Buffer* adopt(const void* host, size_t bytes) = 0;  // a mapped file, read only; null: unsupported, copy
    virtual void release(Buffer* buffer) noexcept = 0;
    virtual void write(Buffer* to, size_t at, const void* from, size_t bytes) = 0;  // thread-safe for disjoint ranges
    virtual void read(const Buffer* from, size_t at, void* to, size_t bytes) = 0;   // after wait()
    virtual void copy(Buffer* to, size_t to_at, const Buffer* from, size_t from_at, size_t bytes) = 0;
    virtual std::unique_ptr<Plan> record(const std::vector<Bound>& nodes, int max_rows) = 0;
    virtual void run(Plan& plan, const Step& step) = 0;  // asynchronous; keeps what it needs of step
    virtual void wait() = 0;                             // device errors surface here
    // Measures the device's limits: bit 0 of `which` = streaming reads, bit 1 = arithmetic. Not measured: left as it
    // is.
    virtual void probe(unsigned which, quant_limits* limits) = 0;
};

// The kernel that runs a node, or null. `op` may differ from node.op (is there a kernel for the fused op?).
const Kernel* find_kernel(const Backend& backend, Op op, const Node& node, const Weight* weight, const Value* in0,
                          const Value* out);
// The kernel that runs a linear whose weight has that format and takes activations of that kind, or null.
const Kernel* find_linear(const Backend& backend, const Format& format, Activation activation, int64_t rows,
                          int64_t cols);

}  // namespace quant
