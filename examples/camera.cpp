// Sends one picture of one part to JigSight and says pass or fail.
//
//   g++ -std=c++17 -O2 camera.cpp -lcurl -o camera
//   ./camera http://127.0.0.1:8000 bracket part.png A-17
//
// Exit code 0: pass. 1: fail. 2: not judged, which is never a pass: set the part aside. A key, if the server asks for
// one, is taken from JIGSIGHT_KEY. Needs libcurl 7.66 or newer.

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <regex>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;
using Curl = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

constexpr Seconds kPatience{20.0};   // how long to keep trying
constexpr long kAttemptMs = 10'000;  // what one attempt may take
constexpr std::array<long, 6> kTryAgain{408, 409, 429, 502, 503, 504};  // 409: an earlier try is still being judged

struct Answer {
    CURLcode code = CURLE_OK;
    long status = 0;
    double retry_after = 0.0;  // seconds; 0 if the server does not say
    std::string body;
};

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// 128 random bits in hexadecimal.
std::string random_key() {
    std::random_device device;
    std::string key;
    for (int digit = 0; digit < 32; ++digit) key += "0123456789abcdef"[device() % 16];
    return key;
}

std::string escaped(CURL* curl, const std::string& text) {
    std::unique_ptr<char, decltype(&curl_free)> found(
        curl_easy_escape(curl, text.c_str(), static_cast<int>(text.size())), curl_free);
    if (!found) throw std::runtime_error("cannot encode " + text);
    return found.get();
}

std::size_t append(char* data, std::size_t size, std::size_t count, void* body) {
    static_cast<std::string*>(body)->append(data, size * count);
    return size * count;
}

Headers make_headers() {
    // One key for all attempts: had an earlier one been judged, its answer comes again, and no second inspection.
    curl_slist* list = curl_slist_append(nullptr, ("Idempotency-Key: " + random_key()).c_str());
    list = curl_slist_append(list, "Content-Type: application/octet-stream");
    list = curl_slist_append(list, "Expect:");  // do not wait to be asked for the picture
    if (const char* key = std::getenv("JIGSIGHT_KEY"); key != nullptr && *key != '\0')
        list = curl_slist_append(list, ("Authorization: Bearer " + std::string(key)).c_str());
    return {list, curl_slist_free_all};
}

Answer attempt(CURL* curl) {
    Answer answer;
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
    answer.code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
    curl_off_t wait = 0;
    if (curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK) answer.retry_after = static_cast<double>(wait);
    return answer;
}

std::string explain(const Answer& answer) {
    if (answer.code != CURLE_OK) return curl_easy_strerror(answer.code);
    return std::to_string(answer.status) + " " + answer.body;  // problem+json: its `detail` says what to do
}

bool worth_another_try(const Answer& answer) {
    return answer.code != CURLE_OK || std::find(kTryAgain.begin(), kTryAgain.end(), answer.status) != kTryAgain.end();
}

// The body of a 2xx answer. Throws if there is none in time.
std::string post(CURL* curl) {
    const auto deadline = Clock::now() + kPatience;
    std::mt19937 random{std::random_device{}()};
    std::uniform_real_distribution<double> jitter(0.5, 1.5);  // not all cameras at once
    for (double pause = 0.1;; pause = std::min(2 * pause, 5.0)) {
        const Answer answer = attempt(curl);
        if (answer.code == CURLE_OK && answer.status >= 200 && answer.status < 300) return answer.body;
        if (!worth_another_try(answer)) throw std::runtime_error(explain(answer));
        const Seconds wait{answer.retry_after > 0 ? answer.retry_after : pause * jitter(random)};
        if (Clock::now() + wait > deadline) throw std::runtime_error("gave up: " + explain(answer));
        std::this_thread::sleep_for(wait);
    }
}

// "pass" or "fail". Quotes inside a JSON string are escaped, so what matches can only be the field itself.
std::string verdict_of(const std::string& body) {
    static const std::regex field(R"re("verdict"\s*:\s*"(pass|fail)")re");
    std::smatch found;
    if (!std::regex_search(body, found, field)) throw std::runtime_error("an answer without a verdict: " + body);
    return found[1];
}

int inspect(const std::string& address, const std::string& category, const std::string& path, const char* serial) {
    if (address.rfind("http://", 0) != 0 && address.rfind("https://", 0) != 0)
        throw std::runtime_error(address + " is no address: it begins with http:// or https://");
    const std::string picture = read_file(path);
    Curl curl(curl_easy_init(), curl_easy_cleanup);
    if (!curl) throw std::runtime_error("libcurl cannot be started");
    std::string url = address + "/v1/categories/" + escaped(curl.get(), category) + "/inspections";
    if (serial != nullptr) url += "?serial=" + escaped(curl.get(), serial);
    const Headers headers = make_headers();
    curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(picture.size()));
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, picture.data());
    curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, kAttemptMs);
    curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
    const std::string verdict = verdict_of(post(curl.get()));
    std::cout << verdict << '\n';
    return verdict == "pass" ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 4) {
        std::cerr << "usage: camera ADDRESS CATEGORY PICTURE [SERIAL]\n";
        return 2;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int code = 2;
    try {
        code = inspect(arguments[1], arguments[2], arguments[3], count > 4 ? arguments[4] : nullptr);
    } catch (const std::exception& error) {
        std::cerr << "not judged: " << error.what() << '\n';
    }
    curl_global_cleanup();
    return code;
}
