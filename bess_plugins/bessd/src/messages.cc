// SPDX-License-Identifier: BSD-3-Clause
#include "messages.h"

#pragma GCC visibility push(default)
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#pragma GCC visibility pop

#include <memory>

#include "descriptors.h"

namespace e2 {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

constexpr const char* kPackage = "bess.pb.";
constexpr const char* kEmpty = "EmptyArg";

// The types of the plugin, and messages made of them.
class Types {
 public:
  Types() {
    pb::FileDescriptorSet files;
    files.ParseFromArray(kDescriptorSet, static_cast<int>(kDescriptorSetBytes));
    for (const pb::FileDescriptorProto& file : files.file()) pool_.BuildFile(file);
  }
  std::unique_ptr<pb::Message> make(const std::string& type) {
    const pb::Descriptor* found = pool_.FindMessageTypeByName(kPackage + type);
    if (found == nullptr) return nullptr;
    return std::unique_ptr<pb::Message>(factory_.GetPrototype(found)->New());
  }

 private:
  pb::DescriptorPool pool_;
  pb::DynamicMessageFactory factory_{&pool_};
};

Types& types() {
  static Types made;
  return made;
}

Args to_args(const pb::Message& message);

// One value of a field: the only one, or element `at` of a repeated one.
Args value_of(const pb::Message& m, const Field* field, int at) {
  const pb::Reflection& r = *m.GetReflection();
  const bool many = at >= 0;
  switch (field->cpp_type()) {
    case Field::CPPTYPE_INT32:
      return static_cast<int64_t>(many ? r.GetRepeatedInt32(m, field, at) : r.GetInt32(m, field));
    case Field::CPPTYPE_INT64:
      return static_cast<int64_t>(many ? r.GetRepeatedInt64(m, field, at) : r.GetInt64(m, field));
    case Field::CPPTYPE_UINT32:
      return uint64_t{many ? r.GetRepeatedUInt32(m, field, at) : r.GetUInt32(m, field)};
    case Field::CPPTYPE_UINT64:
      return uint64_t{many ? r.GetRepeatedUInt64(m, field, at) : r.GetUInt64(m, field)};
    case Field::CPPTYPE_DOUBLE:
      return many ? r.GetRepeatedDouble(m, field, at) : r.GetDouble(m, field);
    case Field::CPPTYPE_FLOAT:
      return double{many ? r.GetRepeatedFloat(m, field, at) : r.GetFloat(m, field)};
    case Field::CPPTYPE_BOOL:
      return many ? r.GetRepeatedBool(m, field, at) : r.GetBool(m, field);
    case Field::CPPTYPE_ENUM:
      return int64_t{many ? r.GetRepeatedEnumValue(m, field, at) : r.GetEnumValue(m, field)};
    case Field::CPPTYPE_STRING:
      return many ? r.GetRepeatedString(m, field, at) : r.GetString(m, field);
    case Field::CPPTYPE_MESSAGE:
      return to_args(many ? r.GetRepeatedMessage(m, field, at) : r.GetMessage(m, field));
  }
  return {};
}

std::string key_text(const Args& key) {
  if (const auto* number = std::get_if<int64_t>(&key.value())) return std::to_string(*number);
  if (const auto* number = std::get_if<uint64_t>(&key.value())) return std::to_string(*number);
  if (const auto* flag = std::get_if<bool>(&key.value())) return *flag ? "true" : "false";
  return key.as_string();
}

// Fields without presence are always there, others where they are set.
Args to_args(const pb::Message& message) {
  const pb::Reflection& reflection = *message.GetReflection();
  Args::Map args;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const Field* const field = message.GetDescriptor()->field(i);
    if (field->is_map()) {
      Args::Map entries;
      for (int at = 0; at < reflection.FieldSize(message, field); ++at) {
        const pb::Message& entry = reflection.GetRepeatedMessage(message, field, at);
        const pb::Descriptor& type = *entry.GetDescriptor();
        entries[key_text(value_of(entry, type.map_key(), -1))] =
            value_of(entry, type.map_value(), -1);
      }
      args[field->name()] = std::move(entries);
    } else if (field->is_repeated()) {
      Args::List list;
      for (int at = 0; at < reflection.FieldSize(message, field); ++at) {
        list.push_back(value_of(message, field, at));
      }
      args[field->name()] = std::move(list);
    } else if (!field->has_presence() || reflection.HasField(message, field)) {
      args[field->name()] = value_of(message, field, -1);
    }
  }
  return args;
}

Status fill(const Args& args, pb::Message& message);

Status set_value(const Args& value, pb::Message& m, const Field* field) {
  const pb::Reflection& r = *m.GetReflection();
  const bool many = field->is_repeated();
  const auto sint = value.as_int();
  const auto uint = value.as_uint();
  switch (field->cpp_type()) {
    case Field::CPPTYPE_INT32:
      many ? r.AddInt32(&m, field, static_cast<int32_t>(sint))
           : r.SetInt32(&m, field, static_cast<int32_t>(sint));
      break;
    case Field::CPPTYPE_INT64:
      many ? r.AddInt64(&m, field, sint) : r.SetInt64(&m, field, sint);
      break;
    case Field::CPPTYPE_UINT32:
      many ? r.AddUInt32(&m, field, static_cast<uint32_t>(uint))
           : r.SetUInt32(&m, field, static_cast<uint32_t>(uint));
      break;
    case Field::CPPTYPE_UINT64:
      many ? r.AddUInt64(&m, field, uint) : r.SetUInt64(&m, field, uint);
      break;
    case Field::CPPTYPE_DOUBLE:
      many ? r.AddDouble(&m, field, value.as_double()) : r.SetDouble(&m, field, value.as_double());
      break;
    case Field::CPPTYPE_FLOAT:
      many ? r.AddFloat(&m, field, static_cast<float>(value.as_double()))
           : r.SetFloat(&m, field, static_cast<float>(value.as_double()));
      break;
    case Field::CPPTYPE_BOOL:
      many ? r.AddBool(&m, field, value.as_bool()) : r.SetBool(&m, field, value.as_bool());
      break;
    case Field::CPPTYPE_ENUM:
      many ? r.AddEnumValue(&m, field, static_cast<int>(sint))
           : r.SetEnumValue(&m, field, static_cast<int>(sint));
      break;
    case Field::CPPTYPE_STRING:
      many ? r.AddString(&m, field, value.as_string()) : r.SetString(&m, field, value.as_string());
      break;
    case Field::CPPTYPE_MESSAGE:
      return fill(value, many ? *r.AddMessage(&m, field) : *r.MutableMessage(&m, field));
  }
  return {};
}

// A map's key as the kind of number or text that its type has.
Args key_value(const std::string& text, const Field* field) {
  if (field->cpp_type() == Field::CPPTYPE_STRING) return text;
  if (field->cpp_type() == Field::CPPTYPE_BOOL) return text == "true";
  return static_cast<int64_t>(std::strtoll(text.c_str(), nullptr, 10));
}

Status fill(const Args& args, pb::Message& message) {
  const pb::Descriptor& type = *message.GetDescriptor();
  for (const auto& [name, value] : args.as_map()) {
    const Field* const field = type.FindFieldByName(name);
    if (field == nullptr) {
      return Status::error(EPROTO, type.full_name() + " has no field '" + name + "'");
    }
    if (field->is_map()) {
      for (const auto& [key, item] : value.as_map()) {
        pb::Message& entry = *message.GetReflection()->AddMessage(&message, field);
        const Field* const key_field = entry.GetDescriptor()->map_key();
        Status status = set_value(key_value(key, key_field), entry, key_field);
        if (status.ok()) status = set_value(item, entry, entry.GetDescriptor()->map_value());
        if (!status.ok()) return status;
      }
    } else if (field->is_repeated()) {
      for (const Args& item : value.as_list()) {
        Status status = set_value(item, message, field);
        if (!status.ok()) return status;
      }
    } else {
      Status status = set_value(value, message, field);
      if (!status.ok()) return status;
    }
  }
  return {};
}

// "bess.pb.XArg" or "XArg" of any URL, as the flat name.
std::string flat_name(const std::string& url) {
  const std::string name = url.substr(url.rfind('/') + 1);
  const std::string package = kPackage;
  return name.compare(0, package.size(), package) == 0 ? name.substr(package.size()) : name;
}

}  // namespace

Status read_message(const pb::Any& from, const std::string& type, Args& args) {
  args = Args(Args::Map{});
  const std::string actual = flat_name(from.type_url());
  if (actual.empty() && !from.value().empty()) {
    return Status::invalid("argument has no type, expected " + type);
  }
  // A message without contents may be of any type that has no fields.
  const bool empty = actual.empty() || (from.value().empty() && actual == kEmpty);
  if (!empty && actual != type) {
    return Status::invalid("argument is " + actual + ", expected " + type);
  }
  if (type == kEmpty) return {};
  const std::unique_ptr<pb::Message> message = types().make(type);
  if (message == nullptr) return Status::error(EPROTO, "the plugin has no message " + type);
  if (!message->ParseFromString(from.value())) return Status::invalid("malformed " + type);
  args = to_args(*message);
  return {};
}

Status write_message(const Args& args, const std::string& type, pb::Any& to) {
  if (type == kEmpty) return {};
  const std::unique_ptr<pb::Message> message = types().make(type);
  if (message == nullptr) return Status::error(EPROTO, "the plugin has no message " + type);
  Status status = fill(args, *message);
  if (!status.ok()) return status;
  to.set_type_url(std::string("type.googleapis.com/") + kPackage + type);
  message->SerializeToString(to.mutable_value());
  return {};
}

}  // namespace e2
