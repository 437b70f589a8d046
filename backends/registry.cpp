#include "backends/registry.h"

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/processor.h"
#include "formats/error.h"
#ifdef QUANT_VULKAN
#include "backends/vulkan/vulkan_backend.h"
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

// ---- Devices of other kinds -------------------------------------------------------------------------------------

// A backend lists its devices as PREFIX:N and opens one by name; "PREFIX" alone is its first usable one.
struct Family {
    const char* prefix;
    void (*list)(std::vector<DeviceInfo>& devices);
    std::unique_ptr<Backend> (*create)(const std::string& name, const DeviceServices& services);  // null: no such name
};
const std::vector<Family>& families() {
    static const std::vector<Family> all = {
#ifdef QUANT_VULKAN
        {"vulkan", append_vulkan_devices,
         [](const std::string& name, const DeviceServices&) { return create_vulkan_backend(name); }},
#endif
    };
    return all;
}
bool belongs(const std::string& name, const Family& family) {
    return name == family.prefix || name.rfind(std::string(family.prefix) + ":", 0) == 0;
}

// ---- The processor's devices, best first --------------------------------------------------------------------------

struct Device {
    const char* name;
    std::string Processor::*lacks;  // null: always usable
    void (*append)(std::vector<Kernel>& table, bool exact);
};
void append_none(std::vector<Kernel>&, bool) {}

const Device devices[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {"cpu:avx512", &Processor::lacks_avx512, append_avx512_kernels},
    {"cpu:avx2", &Processor::lacks_avx2, append_avx2_kernels},
#endif
#if defined(QUANT_ARM_64)
    {"cpu:neon_i8mm", &Processor::lacks_neon_i8mm, append_neon_i8mm_kernels},
    {"cpu:neon_dotprod", &Processor::lacks_neon_dotprod, append_neon_dotprod_kernels},
#endif
#if defined(QUANT_ARM)
    {"cpu:neon", &Processor::lacks_neon, append_neon_kernels},
#endif
    {"cpu:baseline", nullptr, append_baseline_kernels},
    {"cpu:reference", nullptr, append_none},
};

std::string reason(const Device& device, const Processor& processor) {
    if (!device.lacks || (processor.*device.lacks).empty()) return "";
    return "this processor has no " + processor.*device.lacks;
}

}  // namespace

std::vector<DeviceInfo> list_devices() {
    const Processor processor = detect_processor();
    const uint64_t memory = total_memory();
    std::vector<DeviceInfo> list;
    for (const Device& device : devices) {
        DeviceInfo info;
        info.name = device.name;
        info.description = processor.name + ", " + std::to_string((memory + (1u << 29)) >> 30) + " GiB";
        info.reason = reason(device, processor);
        info.memory_total = memory;
        list.push_back(info);
    }
    for (const Family& family : families()) family.list(list);
    return list;
}

std::unique_ptr<Backend> create_backend(const char* name, const DeviceServices& services) {
    const Processor processor = detect_processor();
    const std::string wanted = name ? name : "cpu";
    std::string known = "cpu";
    for (const Family& family : families()) {
        if (belongs(wanted, family))
            if (auto backend = family.create(wanted, services)) return backend;
    }
    for (const Device& device : devices) {
        known += std::string(", ") + device.name;
        const std::string why = reason(device, processor);
        if (wanted == "cpu" ? !why.empty() : wanted != device.name) continue;
        if (!why.empty()) fail(QUANT_ERR_UNSUPPORTED, "device " + wanted + " is not usable: " + why);
        std::vector<Kernel> table;
        device.append(table, services.exact);
        append_reference_kernels(table);
        return create_cpu_backend(device.name, std::move(table), services);
    }
    for (const Family& family : families()) {
        std::vector<DeviceInfo> list;
        family.list(list);
        for (const DeviceInfo& info : list) known += ", " + info.name;
    }
    fail(QUANT_ERR_ARGUMENT, "no device is called \"" + wanted + "\": there are " + known);
}

}  // namespace quant
