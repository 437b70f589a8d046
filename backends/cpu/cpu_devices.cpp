#include "backends/cpu/cpu_devices.h"

#include <utility>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/processor.h"

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

struct Device {
    const char* name;
    std::string Processor::*lacks;  // null: always usable
    void (*append)(std::vector<Kernel>& table, bool exact);
};
void append_none(std::vector<Kernel>&, bool) {}

// Best first, where the processor is not slow_bf16.
const Device devices[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {"cpu:amx", &Processor::lacks_amx, append_amx_kernels},
    {"cpu:avx512_bf16", &Processor::lacks_avx512_bf16, append_avx512_bf16_kernels},
    {"cpu:avx512", &Processor::lacks_avx512, append_avx512_kernels},
    {"cpu:avxvnni", &Processor::lacks_avxvnni, append_avxvnni_kernels},
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
        if (processor.slow_bf16 && info.name == "cpu:avx512") std::swap(list.back(), list[list.size() - 2]);
    }
}

std::unique_ptr<Backend> create_cpu_device(const DeviceInfo& info, const DeviceServices& services) {
    return create_cpu_device(info.name, services, detect_processor().one_stream);
}

std::unique_ptr<Backend> create_cpu_device(const std::string& name, const DeviceServices& services, bool one_stream) {
    for (const Device& device : devices) {
        if (name != device.name) continue;
        std::vector<Kernel> table;
        device.append(table, services.exact);
        append_reference_kernels(table);
        return create_cpu_backend(device.name, std::move(table), services, one_stream);
    }
    return nullptr;
}

}  // namespace quant
