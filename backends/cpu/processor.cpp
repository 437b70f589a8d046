#include "backends/cpu/processor.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(_M_X64)
#define QUANT_X86_64
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#if defined(QUANT_ARM)
#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>

#include <cstdio>
#endif
#endif

namespace quant {
namespace {

struct Need {
    bool met;
    const char* what;
};
template <size_t N>
std::string first_missing(std::string before, const Need (&needs)[N]) {
    for (const Need& need : needs)
        if (!need.met && before.empty()) before = need.what;
    return before;
}

#if defined(QUANT_X86_64)
struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
    Registers r;
#ifdef _MSC_VER
    int v[4];
    __cpuidex(v, static_cast<int>(leaf), static_cast<int>(subleaf));
    std::memcpy(&r, v, sizeof r);
#else
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
#endif
    return r;
}

// Which register files the operating system saves: bit 2 = ymm; bits 5, 6, 7 = AVX-512; 17, 18 = AMX.
uint64_t saved_registers() {
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t{high} << 32) | low;
#endif
}
#endif

#if defined(QUANT_X86_64)
// Linux lets a process use tiles, for which its threads' stacks need room, once it has asked.
bool tiles_allowed() {
#if defined(__linux__)
    constexpr int ask_for_register_file = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, ask_for_register_file, tile_data) == 0;
#else
    return true;
#endif
}
#endif

#if defined(QUANT_ARM)
struct ArmFeatures {
    bool neon = false, vfpv4 = false, dotprod = false, i8mm = false;
};

ArmFeatures arm_features() {
    ArmFeatures has;
#if defined(QUANT_ARM_64)
    has.neon = has.vfpv4 = true;
#if defined(_WIN32)
    has.dotprod = IsProcessorFeaturePresent(43);  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
    has.i8mm = IsProcessorFeaturePresent(66);     // PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE, since Windows 11 24H2
#elif defined(__APPLE__)
    auto feature = [](const char* name) {
        int value = 0;
        size_t size = sizeof value;
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    has.dotprod = feature("hw.optional.arm.FEAT_DotProd");
    has.i8mm = feature("hw.optional.arm.FEAT_I8MM");
#elif defined(__linux__)  // the bits of asm/hwcap.h, which older systems' headers lack
    has.dotprod = getauxval(AT_HWCAP) >> 20 & 1;
    has.i8mm = getauxval(AT_HWCAP2) >> 13 & 1;
#endif
#elif defined(__linux__)
    has.neon = getauxval(AT_HWCAP) >> 12 & 1;
    has.vfpv4 = getauxval(AT_HWCAP) >> 16 & 1;
#endif
    return has;
}

// ARM processors do not name themselves; systems name the processor or the board.
std::string arm_name() {
    char text[128] = "";
#if defined(__APPLE__)
    size_t size = sizeof text - 1;
    if (sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0) != 0) text[0] = 0;
#elif defined(__linux__)
    if (std::FILE* file = std::fopen("/proc/device-tree/model", "rb")) {
        text[std::fread(text, 1, sizeof text - 1, file)] = 0;
        std::fclose(file);
    }
#endif
    return text[0] ? text : "ARM processor";
}
#endif

}  // namespace

#if defined(QUANT_X86_64)
Processor detect_processor() {
    Processor p;
    const Registers zero = cpuid(0);
    const uint32_t last = zero.a, last_extended = cpuid(0x80000000u).a;
    p.one_stream = zero.b == 0x68747541;  // "Auth"enticAMD
    p.slow_bf16 = zero.b == 0x756e6547;   // "Genu"ineIntel
    if (last_extended >= 0x80000004u) {
        char brand[49] = "";
        for (uint32_t i = 0; i < 3; ++i) {
            Registers r = cpuid(0x80000002u + i);
            std::memcpy(brand + 16 * i, &r, 16);
        }
        std::string text = brand;
        size_t begin = text.find_first_not_of(' '), end = text.find_last_not_of(' ');
        if (begin != std::string::npos) p.name = text.substr(begin, end - begin + 1);
    }

    const Registers one = cpuid(1), seven = last >= 7 ? cpuid(7) : Registers{};
    const bool osxsave = one.c >> 27 & 1;
    const uint64_t saved = osxsave ? saved_registers() : 0;
    p.lacks_avx2 = first_missing("", {{(seven.b >> 5 & 1) != 0, "AVX2"},
                                      {(one.c >> 12 & 1) != 0, "FMA"},
                                      {(one.c >> 29 & 1) != 0, "F16C"},
                                      {(saved & 0x6) == 0x6, "AVX enabled by the operating system"}});
    const Registers more = last >= 7 && seven.a >= 1 ? cpuid(7, 1) : Registers{};
    p.lacks_avxvnni = first_missing(p.lacks_avx2, {{(more.a >> 4 & 1) != 0, "AVX-VNNI"}});
    p.lacks_avx512 = first_missing(p.lacks_avx2, {{(seven.b >> 16 & 1) != 0, "AVX-512 F"},
                                                  {(seven.b >> 30 & 1) != 0, "AVX-512 BW"},
                                                  {(seven.b >> 31 & 1) != 0, "AVX-512 VL"},
                                                  {(seven.b >> 17 & 1) != 0, "AVX-512 DQ"},
                                                  {(seven.c >> 11 & 1) != 0, "AVX-512 VNNI"},
                                                  {(saved & 0xe6) == 0xe6, "AVX-512 enabled by the operating system"}});
    p.lacks_avx512_bf16 = first_missing(p.lacks_avx512, {{(more.a >> 5 & 1) != 0, "AVX-512 BF16"}});
    constexpr uint64_t tiles = 3 << 17;
    p.lacks_amx =
        first_missing(p.lacks_avx512_bf16, {{(seven.d >> 24 & 1) != 0, "AMX"},
                                            {(seven.d >> 25 & 1) != 0, "AMX INT8"},
                                            {(seven.d >> 22 & 1) != 0, "AMX BF16"},
                                            {(saved & tiles) == tiles, "AMX enabled by the operating system"}});
    if (p.lacks_amx.empty() && !tiles_allowed())
        p.lacks_amx = "AMX that the operating system allows this process to use";
    return p;
}
#elif defined(QUANT_ARM)
Processor detect_processor() {
    Processor p;
    p.name = arm_name();
    const ArmFeatures has = arm_features();
    p.lacks_neon = first_missing("", {{has.neon, "NEON"}, {has.vfpv4, "VFPv4"}});
    p.lacks_neon_dotprod = first_missing(p.lacks_neon, {{has.dotprod, "dotprod instructions"}});
    p.lacks_neon_i8mm = first_missing(p.lacks_neon_dotprod, {{has.i8mm, "i8mm instructions"}});
    return p;
}
#else
Processor detect_processor() {
    return {};
}
#endif

}  // namespace quant
