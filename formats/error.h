// Errors inside the library are exceptions of this one type (and std::bad_alloc); quant.cpp turns them into statuses.
#pragma once
#include <stdexcept>
#include <string>

#include "quant.h"  // quant_status

namespace quant {

class Error : public std::exception {
  public:
    Error(quant_status status, std::string message) : status_(status), message_(std::move(message)) {
        for (char& c : message_)  // one line, whatever names a file brings
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    quant_status status() const { return status_; }
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    quant_status status_;
    std::string message_;
};

// One line: what is wrong with what, and what to do.
[[noreturn]] inline void fail(quant_status status, std::string message) {
    throw Error(status, std::move(message));
}

}  // namespace quant
