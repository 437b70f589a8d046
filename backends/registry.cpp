#include "backends/registry.h"

#include <cstring>

#include "backends/cpu/cpu_backend.h"
#ifdef QUANT_VULKAN
#include "backends/vulkan/vulkan_backend.h"
#endif
#include "formats/error.h"

#if defined(__x86_64__) || defined(_M_X64)
#define QUANT_X86_64
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif
#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#else
#include <unistd.h>
#endif

namespace quant {
namespace {

// ---- What this processor has ------------------------------------------------------------------------------------

struct Processor {
    std::string name = "CPU";
    std::string lacks_avx2, lacks_avx512;  // the first thing missing, or empty
};

#ifdef QUANT_X86_64
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

// Which register files the operating system saves: bit 2 = ymm; bits 5, 6, 7 = AVX-512.
uint64_t saved_registers() {
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t{high} << 32) | low;
#endif
}

Processor detect_processor() {
    Processor p;
    const uint32_t last = cpuid(0).a, last_extended = cpuid(0x80000000u).a;
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
    struct Need {
        bool met;
        const char* what;
    };
    const Need avx2[] = {{(seven.b >> 5 & 1) != 0, "AVX2"},
                         {(one.c >> 12 & 1) != 0, "FMA"},
                         {(one.c >> 29 & 1) != 0, "F16C"},
                         {(saved & 0x6) == 0x6, "AVX enabled by the operating system"}};
    const Need avx512[] = {{(seven.b >> 16 & 1) != 0, "AVX-512 F"},
                           {(seven.b >> 30 & 1) != 0, "AVX-512 BW"},
                           {(seven.b >> 31 & 1) != 0, "AVX-512 VL"},
                           {(seven.b >> 17 & 1) != 0, "AVX-512 DQ"},
                           {(seven.c >> 11 & 1) != 0, "AVX-512 VNNI"},
                           {(saved & 0xe6) == 0xe6, "AVX-512 enabled by the operating system"}};
    for (const Need& need : avx2)
        if (!need.met && p.lacks_avx2.empty()) p.lacks_avx2 = need.what;
    p.lacks_avx512 = p.lacks_avx2;
    for (const Need& need : avx512)
        if (!need.met && p.lacks_avx512.empty()) p.lacks_avx512 = need.what;
    return p;
}
#else
Processor detect_processor() {
    return {};
}
#endif

uint64_t total_memory() {
#if defined(_WIN32)
    MEMORYSTATUSEX status;
    status.dwLength = sizeof status;
    return GlobalMemoryStatusEx(&status) ? status.ullTotalPhys : 0;
#elif defined(__APPLE__)
    uint64_t bytes = 0;
    size_t size = sizeof bytes;
    return sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
#else
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
#endif
}

// ---- The devices, best first ------------------------------------------------------------------------------------

struct Device {
    const char* name;
    std::string Processor::*lacks;  // null: always usable
    void (*append)(std::vector<Kernel>& table, bool exact);
};
void append_none(std::vector<Kernel>&, bool) {}

const Device devices[] = {
#ifdef QUANT_X86_64
    {"cpu:avx512", &Processor::lacks_avx512, append_avx512_kernels},
    {"cpu:avx2", &Processor::lacks_avx2, append_avx2_kernels},
#endif
    {"cpu:baseline", nullptr, append_baseline_kernels},
    {"cpu:reference", nullptr, append_none},
};

std::string reason(const Device& device, const Processor& processor) {
    if (!device.lacks || (processor.*device.lacks).empty()) return "";
    return "this processor has no " + processor.*device.lacks;
}

void append_cpu_devices(std::vector<DeviceInfo>& list) {
    const Processor processor = detect_processor();
    const uint64_t memory = total_memory();
    for (const Device& device : devices) {
        DeviceInfo info;
        info.name = device.name;
        info.description = processor.name + ", " + std::to_string((memory + (1u << 29)) >> 30) + " GiB";
        info.reason = reason(device, processor);
        info.memory_total = memory;
        list.push_back(info);
    }
}

std::unique_ptr<Backend> create_cpu_device(const DeviceInfo& info, const DeviceServices& services) {
    for (const Device& device : devices) {
        if (info.name != device.name) continue;
        std::vector<Kernel> table;
        device.append(table, services.exact);
        append_reference_kernels(table);
        return create_cpu_backend(device.name, std::move(table), services);
    }
    return nullptr;
}

// A kind of device, "cpu:..." or "vulkan:...": what there is of it, usable or not, and how one is made.
struct Family {
    const char* prefix;
    void (*append)(std::vector<DeviceInfo>& list);
    std::unique_ptr<Backend> (*create)(const DeviceInfo& device, const DeviceServices& services);
};
const Family families[] = {
    {"cpu:", append_cpu_devices, create_cpu_device},
#ifdef QUANT_VULKAN
    {"vulkan:", append_vulkan_devices, create_vulkan_device},
#endif
};

}  // namespace

std::vector<DeviceInfo> list_devices() {
    std::vector<DeviceInfo> list;
    for (const Family& family : families) family.append(list);
    return list;
}

std::unique_ptr<Backend> create_backend(const char* name, const DeviceServices& services) {
    const std::string wanted = name ? name : "cpu";
    for (const Family& family : families) {
        if (wanted != "cpu" && wanted.compare(0, std::strlen(family.prefix), family.prefix) != 0) continue;
        std::vector<DeviceInfo> list;
        family.append(list);
        for (const DeviceInfo& device : list) {
            if (wanted == "cpu" ? !device.reason.empty() : wanted != device.name) continue;
            if (!device.reason.empty())
                fail(QUANT_ERR_UNSUPPORTED, "device " + wanted + " is not usable: " + device.reason);
            return family.create(device, services);
        }
    }
    std::string known = "cpu";
    for (const DeviceInfo& device : list_devices()) known += ", " + device.name;
    fail(QUANT_ERR_ARGUMENT, "no device is called \"" + wanted + "\": there are " + known);
}

}  // namespace quant
