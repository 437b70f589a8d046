// GGUF's tensor types and the formats that they are.
#pragma once
#include <cstdint>

#include "formats/format.h"

namespace quant {

constexpr uint32_t gguf_f32 = 0, gguf_f16 = 1, gguf_i8 = 24, gguf_bf16 = 30;

// A type's name ("Q4_K"); types that nothing here implements are named too, for messages. Null: not a known type.
const char* gguf_type_name(uint32_t type);
bool gguf_type_format(uint32_t type, Format* out);  // false: not implemented
// The type that holds `cols` columns of a format exactly, interleaving a planar one if need be; false: none does.
bool gguf_format_type(const Format& f, int64_t cols, uint32_t* out);

}  // namespace quant
