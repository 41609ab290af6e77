/* A strict reader for a small part of YAML: what is not a flat mapping of scalars, or where one is wanted a list of
 * these, is refused, not guessed at. Every
 * value stays text until its option's type reads it, so 1e-3 is a number and no is a word or a switch, whatever YAML
 * thinks. */
#include "train/config_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct yaml_reader {
  yaml_parser_t parser;
  const char *file;
  config_form form;
  int64_t item;
  cv_error *err;
} yaml_reader;

static curvd_status refuse(const yaml_reader *reader, yaml_mark_t mark, const char *what) {
  return cv_fail(reader->err, CURVD_ERR_OPTION, "%.200s:%zu:%zu: %s", reader->file, mark.line + 1, mark.column + 1,
                 what);
}

static curvd_status next(yaml_reader *reader, yaml_event_t *event) {
  yaml_parser_t *parser = &reader->parser;
  if (yaml_parser_parse(parser, event)) return CURVD_OK;
  if (parser->error == YAML_MEMORY_ERROR)
    return cv_fail(reader->err, CURVD_ERR_MEMORY, "no memory to read %.200s", reader->file);
  const char *problem = parser->problem != NULL ? parser->problem : "unreadable";
  if (parser->error == YAML_READER_ERROR) /* it knows no line */
    return cv_fail(reader->err, CURVD_ERR_OPTION, "%.200s: byte %zu: not UTF-8 text: %.120s", reader->file,
                   parser->problem_offset + 1, problem);
  char what[160];
  snprintf(what, sizeof what, "not YAML: %.120s", problem);
  return refuse(reader, parser->problem_mark, what);
}

/* Why an event cannot stand where a key or a value is expected; NULL when it can. */
static const char *scalar_fault(const yaml_event_t *event) {
  switch (event->type) {
  case YAML_ALIAS_EVENT:
    return "an alias (*name) is refused: write the value itself";
  case YAML_SEQUENCE_START_EVENT:
    return "a list is refused: every option is one word, number or quoted text";
  case YAML_MAPPING_START_EVENT:
    return "nesting is refused: write every option as \"name: value\" without indentation";
  case YAML_SCALAR_EVENT:
    break;
  default:
    return "a word, number or quoted text is missing";
  }
  if (event->data.scalar.anchor != NULL) return "an anchor (&name) is refused: write the value itself";
  if (event->data.scalar.tag != NULL) return "a tag (!name) is refused: the option's own type says what the value is";
  if (memchr(event->data.scalar.value, '\0', event->data.scalar.length) != NULL) return "a zero byte is refused";
  if (event->data.scalar.length == 0 && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
    return "a value is missing (write '' for an empty text)";
  return NULL;
}

static curvd_status scalar_check(const yaml_reader *reader, const yaml_event_t *event) {
  const char *fault = scalar_fault(event);
  return fault == NULL ? CURVD_OK : refuse(reader, event->start_mark, fault);
}

/* Reads the value that belongs to a key and hands both on. */
static curvd_status pair_read(yaml_reader *reader, const yaml_event_t *key, config_take take, void *user) {
  yaml_event_t value;
  CV_TRY(scalar_check(reader, key));
  CV_TRY(next(reader, &value));
  curvd_status status = scalar_check(reader, &value);
  if (status == CURVD_OK) {
    config_pair pair = {.key = (const char *)key->data.scalar.value,
                        .value = (const char *)value.data.scalar.value,
                        .file = reader->file,
                        .key_line = (long)key->start_mark.line + 1,
                        .key_column = (long)key->start_mark.column + 1,
                        .value_line = (long)value.start_mark.line + 1,
                        .value_column = (long)value.start_mark.column + 1,
                        .item = reader->item};
    status = take(user, &pair, reader->err);
  }
  yaml_event_delete(&value);
  return status;
}

/* Everything between the braces of the one mapping. */
static curvd_status mapping_read(yaml_reader *reader, config_take take, void *user) {
  for (bool is_open = true; is_open;) {
    yaml_event_t event;
    CV_TRY(next(reader, &event));
    is_open = event.type != YAML_MAPPING_END_EVENT;
    curvd_status status = is_open ? pair_read(reader, &event, take, user) : CURVD_OK;
    yaml_event_delete(&event);
    CV_TRY(status);
  }
  return CURVD_OK;
}

static bool has_properties(const yaml_event_t *event) {
  return event->type == YAML_MAPPING_START_EVENT
             ? event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL
             : event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL;
}

/* Mappings, one behind the other. */
static curvd_status list_read(yaml_reader *reader, config_take take, void *user) {
  for (bool is_open = true; is_open; reader->item++) {
    yaml_event_t event;
    CV_TRY(next(reader, &event));
    is_open = event.type != YAML_SEQUENCE_END_EVENT;
    curvd_status status = CURVD_OK;
    if (event.type == YAML_MAPPING_START_EVENT && !has_properties(&event))
      status = mapping_read(reader, take, user);
    else if (is_open)
      status = refuse(reader, event.start_mark, "expected a \"- name: value\"");
    yaml_event_delete(&event);
    CV_TRY(status);
  }
  return CURVD_OK;
}

/* What the parser makes of "---" and nothing below it. */
static bool is_nothing(const yaml_event_t *event) {
  return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0 && event->data.scalar.anchor == NULL &&
         event->data.scalar.tag == NULL && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* Outside the mapping or the list: at most one document, and in it at most one of them. */
static curvd_status stream_event(yaml_reader *reader, const yaml_event_t *event, int *n_documents, config_take take,
                                 void *user) {
  switch (event->type) {
  case YAML_STREAM_START_EVENT:
  case YAML_STREAM_END_EVENT:
  case YAML_DOCUMENT_END_EVENT:
    return CURVD_OK;
  case YAML_DOCUMENT_START_EVENT:
    if (++*n_documents > 1) return refuse(reader, event->start_mark, "a second document (---) is refused");
    return CURVD_OK;
  case YAML_MAPPING_START_EVENT:
  case YAML_SEQUENCE_START_EVENT:
    if ((event->type == YAML_SEQUENCE_START_EVENT) != (reader->form == CONFIG_LIST)) break;
    if (has_properties(event)) return refuse(reader, event->start_mark, "an anchor or a tag is refused");
    return reader->form == CONFIG_LIST ? list_read(reader, take, user) : mapping_read(reader, take, user);
  default:
    if (is_nothing(event)) return CURVD_OK;
    break;
  }
  return refuse(reader, event->start_mark,
                reader->form == CONFIG_LIST ? "expected a list, lines that begin with \"- name: value\""
                                            : "expected lines of the form \"name: value\"");
}

static curvd_status stream_read(yaml_reader *reader, config_take take, void *user) {
  int n_documents = 0;
  for (bool is_open = true; is_open;) {
    yaml_event_t event;
    CV_TRY(next(reader, &event));
    is_open = event.type != YAML_STREAM_END_EVENT;
    curvd_status status = stream_event(reader, &event, &n_documents, take, user);
    yaml_event_delete(&event);
    CV_TRY(status);
  }
  return CURVD_OK;
}

curvd_status config_yaml_parse(const char *bytes, size_t n_bytes, const char *file, config_form form, config_take take,
                               void *user, cv_error *err) {
  yaml_reader reader = {.file = file, .form = form, .err = err};
  if (n_bytes > CONFIG_FILE_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "%.200s is larger than %d bytes", file, (int)CONFIG_FILE_MAX);
  if (!yaml_parser_initialize(&reader.parser)) return cv_fail(err, CURVD_ERR_MEMORY, "no memory to read %.200s", file);
  yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&reader.parser, (const unsigned char *)bytes, n_bytes);
  curvd_status status = stream_read(&reader, take, user);
  yaml_parser_delete(&reader.parser);
  return status;
}

curvd_status config_yaml_read(const char *path, config_form form, config_take take, void *user, cv_error *err) {
  curvd_status status = CURVD_ERR_IO;
  const size_t size = (size_t)CONFIG_FILE_MAX + 1; /* one more than allowed, to see that a file is too large */
  char *bytes = malloc(size);
  if (bytes == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory to read %.200s", path);
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    cv_fail(err, status, "cannot open %.200s: %s", path, strerror(errno));
    goto free_bytes;
  }
  size_t n_bytes = fread(bytes, 1, size, file);
  if (ferror(file)) {
    cv_fail(err, status, "cannot read %.200s: %s", path, strerror(errno));
    goto close_file;
  }
  status = config_yaml_parse(bytes, n_bytes, path, form, take, user, err);
close_file:
  fclose(file);
free_bytes:
  free(bytes);
  return status;
}
