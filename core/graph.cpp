#include "core/graph.h"

namespace quant {

const char* cache_kind_name(CacheKind kind) {
    return kind == CacheKind::f16 ? "f16" : kind == CacheKind::s8 ? "s8" : "e4m3";
}

bool cache_kind_parse(const std::string& name, CacheKind* out) {
    for (CacheKind kind : {CacheKind::f16, CacheKind::s8, CacheKind::e4m3}) {
        if (name != cache_kind_name(kind)) continue;
        *out = kind;
        return true;
    }
    return false;
}

const char* op_name(Op op) {
    switch (op) {
        case Op::embed:
            return "embed";
        case Op::rope_angles:
            return "rope_angles";
        case Op::rmsnorm:
            return "rmsnorm";
        case Op::quantize:
            return "quantize";
        case Op::linear:
            return "linear";
        case Op::rope:
            return "rope";
        case Op::cache_write:
            return "cache_write";
        case Op::attention:
            return "attention";
        case Op::silu_mul:
            return "silu_mul";
        case Op::add:
            return "add";
        case Op::select_rows:
            return "select_rows";
        case Op::top_k:
            return "top_k";
        case Op::rmsnorm_quantize:
            return "rmsnorm_quantize";
        case Op::silu_mul_quantize:
            return "silu_mul_quantize";
        case Op::linear_add:
            return "linear_add";
        case Op::rope_cache_write:
            return "rope_cache_write";
        case Op::count_:
            break;
    }
    return "?";
}

int Graph::value(ValueType type, Rows rows, int64_t cols) {
    Value v;
    v.type = type;
    v.rows = rows;
    v.cols = cols;
    values.push_back(v);
    return static_cast<int>(values.size()) - 1;
}

// A view of a view is a view of the same root, so a value's memory is never more than one step away.
int Graph::view(int parent, int64_t offset, int64_t cols) {
    Value v = values[parent];
    if (v.parent < 0) {
        v.parent = parent;
        v.offset = 0;
    }
    v.offset += offset;
    v.cols = cols;
    values.push_back(v);
    return static_cast<int>(values.size()) - 1;
}

}  // namespace quant
