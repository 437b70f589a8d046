#if !defined(_WIN32) && !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64  // files beyond 2 GiB where off_t would be 32 bits
#endif
#include "checkpoints/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "checkpoints/system_file.h"
#include "formats/error.h"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <io.h>
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace quant {
namespace {

[[noreturn]] void io_error(const std::string& name, const char* what) {
    fail(QUANT_ERR_IO, name + ": " + what + " (" + system_error_text() + ")");
}

void check_range(const File& file, uint64_t offset, size_t bytes) {
    if (bytes > file.size() || offset > file.size() - bytes)
        fail(QUANT_ERR_CORRUPT, file.name() + ": the file ends at byte " + std::to_string(file.size()) +
                                    ", before the data it announces; it is truncated");
}

class MemoryFile : public File {
  public:
    MemoryFile(const void* bytes, size_t size) : bytes_(static_cast<const uint8_t*>(bytes)), size_(size) {}
    uint64_t size() const override { return size_; }
    const std::string& name() const override { return name_; }
    const uint8_t* at(uint64_t offset, size_t bytes, std::vector<uint8_t>&) const override {
        check_range(*this, offset, bytes);
        return bytes_ + offset;
    }
    const uint8_t* mapping() const override { return bytes_; }
    void release(uint64_t, size_t) const override {}

  private:
    const uint8_t* bytes_;
    size_t size_;
    std::string name_ = "model in memory";
};

#ifdef _WIN32

std::wstring wide(const std::string& text) {
    const int n = MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, nullptr, 0);
    std::wstring out(static_cast<size_t>(std::max(n, 1)), L'\0');
    if (n > 0) MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, &out[0], n);
    out.resize(out.size() - 1);
    return out;
}

// A file of the system; the handle is its own.
class Handle {
  public:
    explicit Handle(HANDLE h) : handle_(h) {}
    ~Handle() {
        if (handle_ != INVALID_HANDLE_VALUE) CloseHandle(handle_);
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

    static HANDLE open(const std::string& path) {
        return CreateFileW(wide(path).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr,
                           OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    }
    static HANDLE duplicate(int fd) {
        HANDLE out = INVALID_HANDLE_VALUE;
        const HANDLE process = GetCurrentProcess();
        const HANDLE source = reinterpret_cast<HANDLE>(_get_osfhandle(fd));
        if (!DuplicateHandle(process, source, process, &out, 0, FALSE, DUPLICATE_SAME_ACCESS))
            return INVALID_HANDLE_VALUE;
        return out;
    }
    bool valid() const { return handle_ != INVALID_HANDLE_VALUE; }
    bool size(uint64_t* out) const {
        LARGE_INTEGER size;
        if (GetFileType(handle_) != FILE_TYPE_DISK || !GetFileSizeEx(handle_, &size)) return false;
        *out = static_cast<uint64_t>(size.QuadPart);
        return true;
    }
    size_t read(uint64_t offset, void* to, size_t bytes) const {
        OVERLAPPED at{};
        at.Offset = static_cast<DWORD>(offset);
        at.OffsetHigh = static_cast<DWORD>(offset >> 32);
        DWORD got = 0;
        const DWORD want = static_cast<DWORD>(std::min<size_t>(bytes, size_t{1} << 30));
        return ReadFile(handle_, to, want, &got, &at) ? got : 0;
    }
    const uint8_t* map(size_t) const {
        const HANDLE mapping = CreateFileMappingW(handle_, nullptr, PAGE_READONLY, 0, 0, nullptr);
        if (!mapping) return nullptr;
        const void* view = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
        CloseHandle(mapping);  // the view keeps it alive
        return static_cast<const uint8_t*>(view);
    }
    static void unmap(const uint8_t* at, size_t) { UnmapViewOfFile(at); }
    // Unlocking pages that are not locked takes them out of the working set.
    static void discard(const uint8_t* at, size_t bytes) { VirtualUnlock(const_cast<uint8_t*>(at), bytes); }
    static size_t page_bytes() {
        SYSTEM_INFO info;
        GetSystemInfo(&info);
        return info.dwPageSize;
    }

  private:
    HANDLE handle_;
};

#else

class Handle {
  public:
    explicit Handle(int fd) : fd_(fd) {}
    ~Handle() {
        if (fd_ >= 0) close(fd_);
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

    static int open(const std::string& path) { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }
    static int duplicate(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
    bool valid() const { return fd_ >= 0; }
    bool size(uint64_t* out) const {
        struct stat info;
        if (fstat(fd_, &info) != 0) return false;
        if (!S_ISREG(info.st_mode)) {
            errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
            return false;
        }
        *out = static_cast<uint64_t>(info.st_size);
        return true;
    }
    size_t read(uint64_t offset, void* to, size_t bytes) const {
        for (;;) {
            const ssize_t got = pread(fd_, to, std::min<size_t>(bytes, size_t{1} << 30), static_cast<off_t>(offset));
            if (got >= 0) return static_cast<size_t>(got);
            if (errno != EINTR) return 0;
        }
    }
    const uint8_t* map(size_t bytes) const {
        void* const at = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd_, 0);
        return at == MAP_FAILED ? nullptr : static_cast<const uint8_t*>(at);
    }
    static void unmap(const uint8_t* at, size_t bytes) { munmap(const_cast<uint8_t*>(at), bytes); }
    // Nothing was written to these pages, so the next access brings the file's bytes back.
    static void discard(const uint8_t* at, size_t bytes) { madvise(const_cast<uint8_t*>(at), bytes, MADV_DONTNEED); }
    static size_t page_bytes() {
        const long bytes = sysconf(_SC_PAGESIZE);
        return bytes > 0 ? static_cast<size_t>(bytes) : 65536;
    }

  private:
    int fd_;
};

#endif

class DiskFile : public File {
  public:
    DiskFile(const std::string& path, bool map) : name_(path), handle_(Handle::open(path)) { prepare(map); }
    DiskFile(int fd, bool map) : name_("file descriptor " + std::to_string(fd)), handle_(Handle::duplicate(fd)) {
        prepare(map);
    }
    ~DiskFile() override {
        if (mapping_) Handle::unmap(mapping_, static_cast<size_t>(size_));
    }

    uint64_t size() const override { return size_; }
    const std::string& name() const override { return name_; }
    const uint8_t* mapping() const override { return mapping_; }

    const uint8_t* at(uint64_t offset, size_t bytes, std::vector<uint8_t>& scratch) const override {
        check_range(*this, offset, bytes);
        if (mapping_) return mapping_ + offset;
        scratch.resize(bytes);
        for (size_t done = 0; done < bytes;) {
            errno = 0;
            const size_t got = handle_.read(offset + done, scratch.data() + done, bytes - done);
            if (got == 0) io_error(name_, "cannot be read to its end");
            done += got;
        }
        return scratch.data();
    }

    void release(uint64_t offset, size_t bytes) const override {
        if (!mapping_ || bytes > size_ || offset > size_ - bytes) return;
        const size_t begin = static_cast<size_t>(offset);
        const size_t first = (begin + page_ - 1) / page_ * page_, last = (begin + bytes) / page_ * page_;
        if (first < last) Handle::discard(mapping_ + first, last - first);
    }

  private:
    void prepare(bool map) {
        if (!handle_.valid()) io_error(name_, "cannot be opened");
        if (!handle_.size(&size_)) io_error(name_, "is not a file that can be read");
        if (map && size_ > 0 && size_ <= SIZE_MAX) mapping_ = handle_.map(static_cast<size_t>(size_));
    }

    std::string name_;
    Handle handle_;
    uint64_t size_ = 0;
    const uint8_t* mapping_ = nullptr;
    size_t page_ = Handle::page_bytes();
};

}  // namespace

std::unique_ptr<File> open_file(const std::string& path, bool map) {
    return std::make_unique<DiskFile>(path, map);
}
std::unique_ptr<File> open_descriptor(int fd, bool map) {
    return std::make_unique<DiskFile>(fd, map);
}
std::unique_ptr<File> open_memory(const void* bytes, size_t size) {
    return std::make_unique<MemoryFile>(bytes, size);
}

#ifdef _WIN32

bool is_directory(const std::string& path) {
    const DWORD attributes = GetFileAttributesW(wide(path).c_str());
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}
bool file_exists(const std::string& path) {
    return GetFileAttributesW(wide(path).c_str()) != INVALID_FILE_ATTRIBUTES;
}
std::FILE* create_file(const std::string& path) {
    return _wfopen(wide(path).c_str(), L"wb");
}
bool replace_file(const std::string& from, const std::string& to) {
    return MoveFileExW(wide(from).c_str(), wide(to).c_str(), MOVEFILE_REPLACE_EXISTING) != 0;
}
void remove_file(const std::string& path) {
    DeleteFileW(wide(path).c_str());
}
std::string system_error_text() {
    const DWORD code = GetLastError();
    return code != 0 ? std::system_category().message(static_cast<int>(code)) : std::generic_category().message(errno);
}

#else

bool is_directory(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}
bool file_exists(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0;
}
std::FILE* create_file(const std::string& path) {
    return std::fopen(path.c_str(), "wb");
}
bool replace_file(const std::string& from, const std::string& to) {
    return std::rename(from.c_str(), to.c_str()) == 0;
}
void remove_file(const std::string& path) {
    unlink(path.c_str());
}
std::string system_error_text() {
    return errno != 0 ? std::generic_category().message(errno) : "it became shorter while it was read";
}

#endif

}  // namespace quant
