#include "checkpoints/gguf_types.h"

namespace quant {
namespace {

const struct Type {
    uint32_t id;
    const char *name, *format;
} types[] = {
    {gguf_f32, "F32", "f32"},
    {gguf_f16, "F16", "f16"},
    {gguf_bf16, "BF16", "bf16"},
    {2, "Q4_0", "u4:g32:f16:z8:ggml"},
    {3, "Q4_1", "u4:g32:f16:min:ggml"},
    {6, "Q5_0", "u5:g32:f16:z16:ggml"},
    {7, "Q5_1", "u5:g32:f16:min:ggml"},
    {8, "Q8_0", "s8:g32:f16:ggml"},
    {12, "Q4_K", "u4:g32:u6*f16/256:min:ggml"},
    {13, "Q5_K", "u5:g32:u6*f16/256:min:ggml"},
    {14, "Q6_K", "u6:g16:s8*f16/256:z32:ggml"},
    {9, "Q8_1", nullptr},
    {10, "Q2_K", nullptr},
    {11, "Q3_K", nullptr},
    {15, "Q8_K", nullptr},
    {16, "IQ2_XXS", nullptr},
    {17, "IQ2_XS", nullptr},
    {18, "IQ3_XXS", nullptr},
    {19, "IQ1_S", nullptr},
    {20, "IQ4_NL", nullptr},
    {21, "IQ3_S", nullptr},
    {22, "IQ2_S", nullptr},
    {23, "IQ4_XS", nullptr},
    {gguf_i8, "I8", nullptr},
    {25, "I16", nullptr},
    {26, "I32", nullptr},
    {27, "I64", nullptr},
    {28, "F64", nullptr},
    {29, "IQ1_M", nullptr},
    {34, "TQ1_0", nullptr},
    {35, "TQ2_0", nullptr},
    {39, "MXFP4", nullptr},
    {40, "NVFP4", nullptr},
};

const Type* find(uint32_t id) {
    for (const Type& t : types)
        if (t.id == id) return &t;
    return nullptr;
}

}  // namespace

const char* gguf_type_name(uint32_t type) {
    const Type* const t = find(type);
    return t ? t->name : nullptr;
}

bool gguf_type_format(uint32_t type, Format* out) {
    const Type* const t = find(type);
    return t && t->format && format_parse(t->format, out);
}

bool gguf_format_type(const Format& f, int64_t cols, uint32_t* out) {
    Format stored = f;
    if (!is_float(f.element)) {
        stored.storage = Storage::ggml;
        const int64_t block = f.super_group != 0 ? f.super_group : f.group;
        // Of the planar formats, those that interleave_ggml_row knows.
        const bool interleaves = f.element == Element::s8 || f.element == Element::u4;
        if (block == 0 || cols % block != 0 || (f.storage == Storage::planar && !interleaves)) return false;
    }
    const std::string name = format_name(stored);
    for (const Type& t : types) {
        if (!t.format || name != t.format) continue;
        *out = t.id;
        return true;
    }
    return false;
}

}  // namespace quant
