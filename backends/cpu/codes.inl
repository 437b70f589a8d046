// Reading a tile of layout_rows.h in vectors: codes, scales, minima. Included inside an unnamed namespace after a Simd.
using Float = Simd::Float;
using Int = Simd::Int;
using Bytes = Simd::Bytes;
constexpr int lanes = Simd::lanes;
constexpr int step_bytes = 4 * lanes;
constexpr int steps_per_block = 8;

// A number known while compiling, as an argument.
template <int N>
struct Constant {
    static constexpr int value = N;
    constexpr operator int() const { return N; }
};

template <class F, int... I>
QUANT_INLINE void unrolled(F f, std::integer_sequence<int, I...>) {
    (f(Constant<I>{}), ...);
}
template <int N, class F>
QUANT_INLINE void unrolled(F f) {
    unrolled(f, std::make_integer_sequence<int, N>{});
}

QUANT_INLINE float load_scalar(const uint8_t* p) {
    float x;
    std::memcpy(&x, p, 4);
    return x;
}
QUANT_INLINE int32_t load_scalar_int(const uint8_t* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return x;
}

// ---- Codes -------------------------------------------------------------------------------------------------------

// The codes of step S of a block, a byte each; Bits is their size: 4, 5, 6 or 8.
template <int Bits, int S, class V = Simd>  // V: looked at only where it has the operation
QUANT_INLINE Bytes load_step(const uint8_t* block) {
    if constexpr (Bits == 8 && Simd::matrix_dot) {  // steps of 8 columns: half of one
        const uint8_t* pair = block + S / 2 * 2 * step_bytes;
        return V::template narrow_step<S % 2>(Simd::load_bytes(pair), Simd::load_bytes(pair + step_bytes));
    } else if constexpr (Bits == 8) {
        return Simd::load_bytes(block + S * step_bytes);
    } else {
        Bytes codes = Simd::field<S % 2 * 4>(Simd::load_bytes(block + S / 2 * step_bytes), 0x0f);
        if constexpr (Bits == 5) {  // bit S of the plane goes to bit 4
            Bytes plane = Simd::load_bytes(block + 4 * step_bytes);
            if constexpr (S < 4)
                codes = Simd::bit_or(codes, Simd::field_up<4 - S>(plane, 0x10));
            else
                codes = Simd::bit_or(codes, Simd::field<S - 4>(plane, 0x10));
        }
        if constexpr (Bits == 6) {  // bits 2i, 2i + 1 of the plane go to bits 4, 5
            constexpr int i = S % 4;
            Bytes plane = Simd::load_bytes(block + (4 + S / 4) * step_bytes);
            if constexpr (i < 2)
                codes = Simd::bit_or(codes, Simd::field_up<4 - 2 * i>(plane, 0x30));
            else
                codes = Simd::bit_or(codes, Simd::field<2 * i - 4>(plane, 0x30));
        }
        return codes;
    }
}

// The vectors that `dot` takes.
template <int Bits, int S>
QUANT_INLINE Bytes load_dot_step(const uint8_t* block) {
    if constexpr (Bits == 8)
        return Simd::load_bytes(block + S * step_bytes);
    else
        return load_step<Bits, S>(block);
}
template <int Bits>
QUANT_INLINE void load_block(const uint8_t* block, Bytes (&codes)[steps_per_block]) {
    unrolled<steps_per_block>([&](auto s)
                                  QUANT_INLINE_LAMBDA { codes[s] = load_dot_step<Bits, decltype(s)::value>(block); });
}

// ---- Headers -----------------------------------------------------------------------------------------------------

QUANT_INLINE Float load_floats(FloatType type, const uint8_t* p) {
    if (type == FloatType::f16) return Simd::load_f16(p);
    if (type == FloatType::bf16) return Simd::load_bf16(p);
    return Simd::load(reinterpret_cast<const float*>(p));
}

// Scale and offset (minimum, or zero point) of group g of a panel.
struct GroupScale {
    Float scale, offset;
};
QUANT_INLINE GroupScale load_scale(const TileShape& t, const uint8_t* header, int g) {
    const size_t floats = lanes * (t.scale == FloatType::f32 ? 4 : 2);
    GroupScale r{Simd::set(0), Simd::set(0)};
    switch (t.header) {
        case HeaderKind::none:
            break;
        case HeaderKind::plain:
            r.scale = load_floats(t.scale, header + g * floats);
            break;
        case HeaderKind::minimum:
            r.scale = load_floats(t.scale, header + g * floats);
            r.offset = load_floats(t.scale, header + (t.panel_groups + g) * floats);
            break;
        case HeaderKind::integer:
            r.scale = load_floats(t.scale, header + g * floats);
            r.offset = Simd::to_float(Simd::load_u8(header + t.panel_groups * floats + g * lanes));
            break;
        case HeaderKind::nested: {
            const uint8_t* codes = header + floats + g * lanes;
            Int code = t.scale_code == ScaleCode::s8 ? Simd::load_s8(codes) : Simd::load_u8(codes);
            r.scale = Simd::mul(Simd::to_float(code), load_floats(t.scale, header));
            break;
        }
        case HeaderKind::nested_u6: {
            const uint8_t* codes = header + 2 * floats;
            Int low = Simd::load_u8(codes + g * lanes);
            Int high = Simd::load_nibbles(codes + t.panel_groups * lanes + g * (lanes / 2));
            Int minimum = Simd::bit_or(Simd::shift_right<6>(low), Simd::shift_left<2>(high));
            Int scale = Simd::bit_and(low, Simd::set_int(63));
            r.scale = Simd::mul(Simd::to_float(scale), load_floats(t.scale, header));
            r.offset = Simd::mul(Simd::to_float(minimum), load_floats(t.scale, header + floats));
            break;
        }
    }
    return r;
}

QUANT_INLINE bool has_offsets(const TileShape& t) {
    return t.header == HeaderKind::minimum || t.header == HeaderKind::integer || t.header == HeaderKind::nested_u6;
}

QUANT_INLINE const uint8_t* panel_at(const TileShape& t, const uint8_t* tile, int panel) {
    return tile + static_cast<size_t>(panel) * t.panel_bytes;
}

enum class Groups { of_16, of_32, longer };

QUANT_INLINE Groups groups_of(const TileShape& t) {
    return t.group_halves == 1 ? Groups::of_16 : t.group_halves == 2 ? Groups::of_32 : Groups::longer;
}

// ---- Rounding to int8 --------------------------------------------------------------------------------------------

// x * 127 / absmax as a code; NaN (also infinity * 0) becomes 0.
QUANT_INLINE Int round_code(Float x) {
    x = Simd::nan_to_zero(x);
    return Simd::round(Simd::min(Simd::max(x, Simd::set(-127)), Simd::set(127)));
}

// Largest of m and |x|; NaN does not count.
QUANT_INLINE Float larger_magnitude(Float x, Float m) {
    return Simd::max(Simd::abs(x), m);
}
