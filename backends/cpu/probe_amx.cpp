#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/probe.h"

namespace quant {
namespace {

// Eight full tiles of zeros.
void configure() {
    alignas(64) volatile uint8_t config[64] = {};  // volatile: compilers know of few of its bytes being read
    config[0] = 1;                                 // palette
    for (int i = 0; i < 8; ++i) config[16 + 2 * i] = 64, config[48 + i] = 16;
    _tile_loadconfig(const_cast<const uint8_t*>(config));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}
int finish() {
    alignas(64) int32_t sums[256];
    _tile_stored(0, sums, 64);
    _tile_release();
    return sums[0];
}

int int8_loop(int rounds) {
    configure();
    for (int r = 0; r < rounds; ++r) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    return finish();
}

int bf16_loop(int rounds) {
    configure();
    for (int r = 0; r < rounds; ++r) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return finish();
}

constexpr double operations = 4 * 2.0 * 16 * 16;

}  // namespace

const ArithmeticLoop int8_amx = {int8_loop, operations * 64};
const ArithmeticLoop bf16_amx = {bf16_loop, operations * 32};

}  // namespace quant
#endif
