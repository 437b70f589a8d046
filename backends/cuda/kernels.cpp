#include "backends/cuda/kernels.h"

#include "backends/cuda/emit.h"
#include "backends/cuda/layouts.h"

namespace quant {
namespace cuda {
namespace {

bool any(const Node&, const Weight*, const Value*, const Value*) {
    return true;
}
bool accepts_tensor_heads(const Node& node, const Weight*, const Value*, const Value*) {
    return node.head_dim == 64 || node.head_dim == 128;
}
bool is_f32_vector(const Weight* w) {
    return w && w->format.element == Element::f32;
}
bool accepts_table(const Node&, const Weight* w, const Value*, const Value*) {
    return w && (w->format.storage == Storage::ggml || w->format.scale_code == ScaleCode::none);
}
bool accepts_vector(const Node&, const Weight* w, const Value*, const Value*) {
    return is_f32_vector(w);
}
// The columns that may be among the largest fit into 64 kB.
bool accepts_choice(const Node&, const Weight*, const Value* in0, const Value* out) {
    return in0 && out && in0->cols <= 256000 && out->cols <= 128;
}
bool accepts_row(const Node& node, const Weight* w, const Value* in0, const Value* out) {
    const bool quantizes =
        node.op == Op::quantize || node.op == Op::rmsnorm_quantize || node.op == Op::silu_mul_quantize;
    if (!in0 || !out || (out->type != ValueType::f32) != quantizes) return false;
    return (node.op != Op::rmsnorm && node.op != Op::rmsnorm_quantize) || is_f32_vector(w);
}

// ---- Linears --------------------------------------------------------------------------------------------------------

constexpr int64_t most_integer_columns = 65536;  // 127 * 255 * 65536 < 2^31

bool integer_product(const Weight& w, const Value& in0) {
    const Format& f = w.format;
    return in0.type == ValueType::s8 && !is_float(f.element) && f.element != Element::e4m3 &&
           (f.granularity == Granularity::channel || f.granularity == Granularity::tensor);
}
template <bool bf16>
bool accepts_floats(const Node&, const Weight* w, const Value* in0, const Value*) {
    return w && in0 && in0->type == ValueType::f32 && fragments_hold(w->format) &&
           (w->format.element == Element::bf16) == bf16;
}
bool accepts_integers(const Node&, const Weight* w, const Value* in0, const Value*) {
    return w && in0 && integer_product(*w, *in0) && fragments_hold(w->format) && w->cols <= most_integer_columns;
}
template <bool bf16>
bool accepts_codes(const Node&, const Weight* w, const Value* in0, const Value*) {
    return w && in0 && in0->type != ValueType::f32 && !integer_product(*w, *in0) && fragments_hold(w->format) &&
           (w->format.element == Element::bf16) == bf16;
}
// e4m3, or 4 bits of which the zero point 8 makes exact e4m3, with scales of whole chunks of columns.
bool accepts_e4m3(const Node&, const Weight* w, const Value* in0, const Value*) {
    if (!w || !in0 || in0->type != ValueType::e4m3 || !fragments_hold(w->format)) return false;
    const Format& f = w->format;
    if (f.element == Element::e4m3) return true;
    return f.element == Element::u4 && f.zero == Zero::constant && f.zero_point == 8 && f.group % 128 == 0;
}
bool accepts_plain(const Node&, const Weight* w, const Value* in0, const Value*) {
    return w && in0 && (!integer_product(*w, *in0) || w->cols <= most_integer_columns);
}

}  // namespace

std::vector<Kernel> kernel_table(const DeviceTraits& traits, bool exact) {
    const Layout* fragments = &layout_fragments;
    std::vector<Kernel> table;
    for (Op op : {Op::linear_add, Op::linear}) {
        const bool add = op == Op::linear_add;
        if (!exact) {
            table.push_back({add ? "cuda f16 linear_add" : "cuda f16 linear", op, fragments, accepts_floats<false>,
                             emit_linear_fragments, "f16"});
            if (traits.architecture >= 80)
                table.push_back({add ? "cuda bf16 linear_add" : "cuda bf16 linear", op, fragments, accepts_floats<true>,
                                 emit_linear_fragments, "bf16"});
            if (traits.wgmma)
                table.push_back({add ? "cuda e4m3 linear_add" : "cuda e4m3 linear", op, fragments, accepts_e4m3,
                                 emit_linear_e4m3, "sums of 256 of 14 bits"});
        }
        table.push_back({add ? "cuda int8 linear_add" : "cuda int8 linear", op, fragments, accepts_integers,
                         emit_linear_fragments, nullptr});
        table.push_back({add ? "cuda codes linear_add" : "cuda codes linear", op, fragments, accepts_codes<false>,
                         emit_linear_fragments, nullptr});
        if (traits.architecture >= 80)
            table.push_back({add ? "cuda bf16 codes linear_add" : "cuda bf16 codes linear", op, fragments,
                             accepts_codes<true>, emit_linear_fragments, nullptr});
        table.push_back({add ? "cuda plain linear_add" : "cuda plain linear", op, &layout_plain, accepts_plain,
                         emit_linear_plain, nullptr});
    }
    if (!exact)
        table.push_back(
            {"cuda f16 attention", Op::attention, nullptr, accepts_tensor_heads, emit_attention_f16, "f16"});
    const Kernel rows[] = {
        {"cuda embed", Op::embed, nullptr, accepts_table, emit_embed, nullptr},
        {"cuda rope_angles", Op::rope_angles, nullptr, accepts_vector, emit_rope_angles, nullptr},
        {"cuda rmsnorm", Op::rmsnorm, nullptr, accepts_row, emit_row_function, nullptr},
        {"cuda rmsnorm_quantize", Op::rmsnorm_quantize, nullptr, accepts_row, emit_row_function, nullptr},
        {"cuda quantize", Op::quantize, nullptr, accepts_row, emit_row_function, nullptr},
        {"cuda silu_mul", Op::silu_mul, nullptr, accepts_row, emit_row_function, nullptr},
        {"cuda silu_mul_quantize", Op::silu_mul_quantize, nullptr, accepts_row, emit_row_function, nullptr},
        {"cuda add", Op::add, nullptr, any, emit_add, nullptr},
        {"cuda select_rows", Op::select_rows, nullptr, any, emit_select_rows, nullptr},
        {"cuda top_k", Op::top_k, nullptr, accepts_choice, emit_top_k, nullptr},
        {"cuda rope", Op::rope, nullptr, any, emit_rope, nullptr},
        {"cuda cache_write", Op::cache_write, nullptr, any, emit_cache_write, nullptr},
        {"cuda rope_cache_write", Op::rope_cache_write, nullptr, any, emit_rope_cache_write, nullptr},
        {"cuda attention", Op::attention, nullptr, any, emit_attention, nullptr},
    };
    table.insert(table.end(), std::begin(rows), std::end(rows));
    return table;
}

}  // namespace cuda
}  // namespace quant
